/**
 * The retry settings of the Promise API as a policy.
 */
import { Effect } from "effect"
import type * as Channel from "../../Channel.ts"
import type * as Message from "../../Message.ts"
import * as Retry from "../../Retry.ts"
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

const strategyDelay = (settings: RetryStrategy): Delay => {
  const { baseDelay = defaults.retryDelayMillis, customDelayFn, jitter, maxDelay, multiplier, strategy } = settings
  if (strategy === "custom") {
    return (attempt, message) => Retry.nack(customDelayFn?.(attempt, fromMessage(message)) ?? baseDelay)
  }
  const schedule = schedules[strategy](baseDelay, {
    max: maxDelay,
    jitter: jitter === true ? "proportional" : jitter === false ? undefined : jitter,
    factor: multiplier
  })
  return (attempt, message, error) =>
    // None of these schedules waits for anything.
    Effect.runSync(Retry.decide(schedule, { attempt, error, message })) ?? Retry.nack(baseDelay)
}

const delayOf = ({ retryDelay, retryStrategy }: Settings): Delay | undefined => {
  if (retryStrategy !== undefined) return strategyDelay(retryStrategy)
  if (retryDelay === undefined) return undefined
  return typeof retryDelay === "function"
    ? (attempt, message) => Retry.nack(retryDelay(attempt, fromMessage(message)))
    : () => Retry.nack(retryDelay)
}

/** The settings of a subscription, else those of its manager; an error that says so is never retried. */
export const policyOf = (own: Settings, shared: Settings): Delay => {
  const delay = delayOf(own) ?? delayOf(shared) ?? (() => Retry.nack(defaults.retryDelayMillis))
  return (attempt, message, error) => isUnrecoverable(error) ? Retry.term : delay(attempt, message, error)
}
