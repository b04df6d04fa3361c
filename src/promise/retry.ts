/**
 * The retry settings of the Promise API as a policy.
 */
import { Effect } from "effect"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import * as Retry from "../Retry.ts"
import * as Given from "../internal/optionChecks.ts"
import { fromMessage, isUnrecoverable } from "./message.ts"
import type { RetryStrategy, SubscribeOptions } from "./options.ts"
import { defaults } from "./options.ts"

type Settings = Pick<SubscribeOptions, "retryDelay" | "retryStrategy">
type Any = Message.Message<Channel.Source>
type Delay = (attempt: number, message: Any, error: unknown) => Retry.Verdict

const schedules = {
  fixed: Retry.fixed,
  linear: Retry.linear,
  exponential: Retry.exponential,
  fibonacci: Retry.fibonacci
}

/** The answer of a user's function. An invalid one is logged where the policy is asked, and the message waits for the default delay. */
const given = (option: string, delay: unknown): Retry.Verdict =>
  Retry.nack(Given.throwing(Retry.InvalidRetry)(Given.delay(`what ${option} gives`, delay)))

const strategyDelay = (settings: RetryStrategy): Delay => {
  const {
    baseDelay = defaults.retryDelayMillis,
    customDelayFn,
    jitter,
    maxDelay,
    multiplier,
    strategy = "exponential"
  } = settings
  if (strategy === "custom") {
    return (attempt, message) =>
      customDelayFn === undefined
        ? Retry.nack(baseDelay)
        : given("customDelayFn", customDelayFn(attempt, fromMessage(message)))
  }
  const schedule = schedules[strategy](baseDelay, {
    max: maxDelay,
    jitter: jitter === true ? "proportional" : jitter === false ? undefined : jitter,
    factor: multiplier
  })
  return (attempt, message, error) =>
    // None of these schedules waits.
    Effect.runSync(Retry.decide(schedule, { attempt, error, message })) ?? Retry.nack(baseDelay)
}

const delayOf = ({ retryDelay, retryStrategy }: Settings): Delay | undefined => {
  if (retryStrategy !== undefined) {
    return strategyDelay(typeof retryStrategy === "string" ? { strategy: retryStrategy } : retryStrategy)
  }
  if (retryDelay === undefined) return undefined
  return typeof retryDelay === "function"
    ? (attempt, message) => given("retryDelay", retryDelay(attempt, fromMessage(message)))
    : () => Retry.nack(retryDelay)
}

/** The settings of a subscription, else those of its manager; an error that says so is never retried. */
export const policyOf = (own: Settings, shared: Settings): Delay => {
  const delay = delayOf(own) ?? delayOf(shared) ?? (() => Retry.nack(defaults.retryDelayMillis))
  return (attempt, message, error) => isUnrecoverable(error) ? Retry.term : delay(attempt, message, error)
}
