/**
 * Batches: the outcomes that the handler of a batch may give its messages, one each. `Subscription.batch` starts a subscription in batches.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Cause } from "effect"
import type * as Channel from "./Channel.ts"
import type * as Message from "./Message.ts"

type Ending<E> =
  | { readonly _tag: "Ack" }
  | { readonly _tag: "Nack"; readonly options: { readonly delay?: Duration.Input | undefined } | undefined }
  | { readonly _tag: "Later"; readonly delay: Duration.Input }
  | { readonly _tag: "Term"; readonly reason: string }
  | { readonly _tag: "Fail"; readonly error: E }
  /** It has no outcome of its own: the batch failed with it. */
  | { readonly _tag: "Together"; readonly cause: Cause.Cause<E> }

/**
 * The outcome of one message of a batch, made by `ack`, `nack`, `later`, `term` or `fail`.
 *
 * @category models
 * @since 0.1.0
 */
export class Outcome<out E = never> {
  /** @internal */
  readonly ending: Ending<E>

  /** @internal */
  constructor(ending: Ending<E>) {
    this.ending = ending
  }
}

/**
 * The outcomes of a batch by its messages. A message without one is acknowledged.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcomes<S extends Channel.Source, E = never> = ReadonlyMap<Message.Message<S>, Outcome<E>>

/**
 * Acknowledges the message, as if it had no outcome.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ack: Outcome = new Outcome({ _tag: "Ack" })

/**
 * Returns the message for its next attempt, at once or after `delay`. It has no limit: `maxRetries` counts failures. With each attempt a message
 * comes in smaller batches; `later` does not count as one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nack = (options?: { readonly delay?: Duration.Input | undefined }): Outcome =>
  new Outcome({ _tag: "Nack", options })

/**
 * Returns the message untouched: it comes again after `delay`, as the same attempt.
 *
 * @category constructors
 * @since 0.1.0
 */
export const later = (delay: Duration.Input): Outcome => new Outcome({ _tag: "Later", delay })

/**
 * Ends the message: it becomes a dead letter with this reason.
 *
 * @category constructors
 * @since 0.1.0
 */
export const term = (reason: string): Outcome => new Outcome({ _tag: "Term", reason })

/**
 * Fails the attempt of this message alone: `retry` and `maxRetries` decide whether it comes again or becomes a dead letter.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fail = <E>(error: E): Outcome<E> => new Outcome({ _tag: "Fail", error })

/**
 * Fails the message as a part of its batch, as if the handler had failed.
 *
 * @internal
 */
export const together = <E>(cause: Cause.Cause<E>): Outcome<E> => new Outcome({ _tag: "Together", cause })

/**
 * Returns the error of an outcome that is a failure.
 *
 * @internal
 */
export const errorOf = (outcome: Outcome<unknown>): { readonly value: unknown } | undefined => {
  const { ending } = outcome
  return ending._tag === "Fail"
    ? { value: ending.error }
    : ending._tag === "Together"
    ? { value: Cause.squash(ending.cause) }
    : undefined
}
