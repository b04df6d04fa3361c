/**
 * The verdict on a delivery whose handler failed: again after a delay, or a dead letter.
 */
import { Cause, Duration, Effect } from "effect"
import type { BrokerError, Delivery } from "../Broker.ts"
import * as Retry from "../Retry.ts"
import { BackendNow } from "../internal/messageAge.ts"
import { failureOf } from "../internal/failure.ts"
import * as PolicyCalls from "../internal/policyCalls.ts"
import type { Settlement } from "../internal/settlement.ts"
import { again } from "../internal/settlement.ts"

export interface Options<E, M extends Retry.MessageInfo> {
  /** The owner of the policy, for the log. */
  readonly name: string
  readonly policy: Retry.Policy<E, M> | undefined
  /** Decides if there is no policy, and about errors that the policy does not know. */
  readonly fallback: Retry.AnyRule
  /** Whether an error is not one of the handler's. */
  readonly isUnknown: (error: unknown) => boolean
  readonly maxRetries: number
  /** Whether `maxRetries` ends a schedule, too. Otherwise a schedule ends by itself. */
  readonly isLimited: boolean
  readonly retryMillis: number
  /** The time by the clock of the backend for this channel. */
  readonly nowMillis: (channel: string) => Effect.Effect<number, BrokerError>
}

export const make = <E, M extends Retry.MessageInfo>(options: Options<E, M>) => {
  const { fallback, isLimited, isUnknown, maxRetries, name, nowMillis, policy, retryMillis } = options

  const answerOf = PolicyCalls.make(name)

  /** Asks the policy. The default policy decides about a defect, a timeout, or an error that the policy does not know. */
  const ask = (message: M, attempt: number, cause: Cause.Cause<unknown>): Effect.Effect<Retry.Verdict | undefined> => {
    const error = Cause.findErrorOption(cause)
    const byDefault = Retry.decide(fallback, { attempt, error: Cause.squash(cause), message })
    if (policy === undefined || error._tag === "None" || Cause.hasDies(cause) || isUnknown(error.value)) {
      return byDefault
    }
    return Effect.flatMap(
      Retry.decide(policy, { attempt, error: error.value as E, message }),
      (verdict) => verdict === undefined ? byDefault : Effect.succeed(verdict)
    )
  }

  return (
    message: M,
    delivery: Delivery,
    cause: Cause.Cause<unknown>,
    onFailed: () => void
  ): Effect.Effect<Settlement> => {
    // An interruption from outside of the handler says nothing about the message.
    if (Cause.hasInterruptsOnly(cause)) return Effect.succeed(again(delivery, retryMillis, "interrupted"))
    const { attempt } = delivery
    return Effect.map(
      answerOf(
        Effect.provideService(ask(message, attempt, cause), BackendNow, nowMillis(message.channel)),
        Retry.nack(retryMillis)
      ),
      (verdict = Retry.nack(retryMillis)): Settlement => {
        onFailed()
        if (verdict._tag === "Term") return { _tag: "Bury", failure: failureOf("term", cause) }
        if (verdict._tag === "Release") return again(delivery, 0, "released")
        const unlimited = !isLimited && verdict._tag === "Retry" && verdict.isScheduled === true
        if (verdict._tag === "Exhausted" || (attempt > maxRetries && !unlimited)) {
          return { _tag: "Bury", failure: failureOf("exhausted", cause) }
        }
        return again(delivery, Duration.toMillis(verdict.delay), cause, attempt + 1)
      }
    )
  }
}
