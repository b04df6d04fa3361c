/** The answers of a policy to a failure. */
import type { DateTime } from "effect"
import { Duration, Schema } from "effect"
import * as Given from "../internal/optionChecks.ts"

/**
 * The message that failed, as a policy sees it. A subscription passes its own message, with the payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessageInfo {
  readonly id: string
  readonly channel: string
  readonly publishedAt: DateTime.Utc
  readonly headers: Readonly<Record<string, string>>
}

/**
 * One failed attempt at a message: the failure that a policy decides about.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attempt<out E, out M extends MessageInfo = MessageInfo> {
  /** The attempt that failed, from 1. */
  readonly attempt: number
  readonly error: E
  readonly message: M
}

/**
 * The answer of a policy to one failure.
 *
 * - `Retry`: again after `delay`, as the next attempt. - `Exhausted`: the policy has ended; the message becomes a dead letter.
 * - `Term`: never again. - `Release`: again at once, as the same attempt.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict =
  | { readonly _tag: "Retry"; readonly delay: Duration.Duration; readonly isScheduled?: boolean | undefined }
  | { readonly _tag: "Exhausted" }
  | { readonly _tag: "Term" }
  | { readonly _tag: "Release" }

/**
 * A delay, a decision or a setting of a strategy cannot be used. It is thrown where the value is written. A value that a policy returns at
 * run time is logged instead, and the message waits for `retryDelay`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRetry extends Schema.TaggedError<InvalidRetry>()("InvalidRetry", Given.problemFields) {}

export const orThrow = Given.throwing(InvalidRetry)

/** Reads a delay. */
export const spanOf = (option: string, value: Duration.Input): Duration.Duration =>
  Duration.millis(orThrow(Given.delay(option, value)))

/**
 * Decides that the message is never handled again: it becomes a dead letter with reason `term`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const term: Verdict = { _tag: "Term" }

/**
 * Decides that the message is handled again at once, and that the attempt does not count. Use it for errors that say nothing about the
 * message. It has no limit, but it is paced: see `Message.release`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const release: Verdict = { _tag: "Release" }

/**
 * Decides that the message is handled again after a fixed delay, at most `maxRetries` times. A delay of 0 is paced: see `Message.release`.
 *
 * **Errors**: throws `InvalidRetry` unless the delay is a duration of 0 or more.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nack = (delay: Duration.Input): Verdict => ({
  _tag: "Retry",
  delay: Duration.millis(orThrow(Given.delay("delay", delay)))
})

export const isVerdict = (answer: unknown): answer is Verdict =>
  typeof answer === "object" && answer !== null && "_tag" in answer
  && (answer._tag === "Retry" || answer._tag === "Exhausted" || answer._tag === "Term" || answer._tag === "Release")

/** Reads the result of a function: one of the verdicts, or a delay. Anything else is a mistake, and must not become "at once". */
export const verdictOf = (option: string, answer: unknown): Verdict =>
  !isVerdict(answer)
    ? { _tag: "Retry", delay: spanOf(option, answer as Duration.Input) }
    : answer._tag === "Retry"
    ? { ...answer, delay: spanOf(option, answer.delay) }
    : answer
