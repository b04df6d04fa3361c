/** Options: those of a subscription, the defaults of a program, and the errors of both. */
import type { DateTime, Duration, Effect } from "effect"
import { Schema } from "effect"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import type * as Retry from "../Retry.ts"
import type * as Transaction from "../Transaction.ts"
import type * as Reporting from "../internal/reports.ts"
import type * as Middleware from "../middleware/definition.ts"
import * as Given from "../internal/optionChecks.ts"

/**
 * The place where a new group begins on channels that exist already.
 *
 * - `"earliest"`: the oldest message that another group has not settled; without other groups, the oldest message. Messages that all groups
 *   have settled, and that only wait to be removed, do not count.
 * - `"latest"`: the next message that is published.
 * - `position`: the first message after a position (as in a receipt).
 * - `time`: the first message that was published at this time or later.
 *
 * @category models
 * @since 0.1.0
 */
export type StartFrom =
  | "earliest"
  | "latest"
  | { readonly position: string }
  | { readonly time: DateTime.DateTime.Input }

/**
 * The defaults of a program, for every subscription that does not set these options itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Defaults {
  /** Names the group of a subscription without `group`, from its channel name or pattern. Default: that name itself. */
  readonly groupName?: ((source: string) => string) | undefined
  /** Makes the first part of a consumer's name; a random part is added. Default `host:pid`. */
  readonly consumerName?: (() => string) | undefined
  /** The number of handlers that run at a time. Default 1. */
  readonly concurrency?: number | undefined
  /** How long a message belongs to a consumer without a renewal. Default 30 seconds. */
  readonly lease?: Duration.Input | undefined
  /** How long one read waits at the server. Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** How long the end of a subscription waits for running handlers. Default 30 seconds; with `Rotif.layerMemory` 0. */
  readonly drainTimeout?: Duration.Input | undefined
  /** The number of retries after the first attempt. Default 5. */
  readonly maxRetries?: number | undefined
  /** How long a failed message waits for its next attempt if no policy decides. Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * The default policy, unless `Retry.layer` has one. It decides about failures of subscriptions without a `retry`, and about defects and
   * timeouts of all subscriptions. Default: again after `retryDelay`.
   */
  readonly retry?: Retry.AnyRule | undefined
  /** The number of lost consumers after which a message becomes a dead letter. Default 3. */
  readonly maxCrashes?: number | undefined
  /**
   * The destination of reports about messages: dead letters, defects, and messages that are given back repeatedly. It is a level of the log,
   * `"None"`, or a function that gets every report. Default `"Warn"`.
   *
   * **Details**: the log has at most 10 lines for a group in 10 seconds, and then a line with the number of lines left out. A failure that is
   * retried is a line of level `Debug`; from the eighth attempt on, each doubling of the attempts is a warning. A function gets all reports. At
   * most 100 calls of it run at a time, a call may take 5 seconds, and at most 10,000 reports wait for it. More reports are left out, and a
   * line gives their number.
   */
  readonly reports?: Reports | undefined
}

/**
 * The destination of reports: a level of the log, nowhere, or a function.
 *
 * @category models
 * @since 0.1.0
 */
export type Reports = Reporting.Sink

export type { Report } from "../internal/report.ts"

/**
 * Options of a stream of messages: its group, how many messages it holds, and where a new group begins.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions {
  /**
   * The consumer group. Every group gets every message; the consumers of one group share them. Default: the name of the channel
   * or the pattern.
   */
  readonly group?: string | undefined
  /** The first part of the consumer's name; a random part is added, because names must be unique among living consumers. */
  readonly consumer?: string | undefined
  /** How many handlers run at a time. 1 (the default) keeps the order of each channel, but for redeliveries. */
  readonly concurrency?: number | undefined
  /**
   * The number of messages that may wait in this process for a handler. They are leased to it. At most `concurrency + prefetch` messages are
   * held, over all channels and shards. Default: about as many as the handlers finish in 50 ms, from 0 to 100 or `concurrency`, whichever is
   * more; with `ackMode: "manual"`, `concurrency`. While all handlers are busy, a message that has waited for 250 ms is given back if another
   * consumer of the group reads its channel. That costs no attempt.
   */
  readonly prefetch?: number | undefined
  /** The place where a new group begins. Default `"earliest"`. It has no effect on a group that exists. */
  readonly startFrom?: StartFrom | undefined
  /**
   * How long a message belongs to this consumer without a renewal. It is renewed three times in this time. The messages of a killed process
   * wait this long; the consumers of one group should have the same lease. Default 30 seconds, at least 100 ms.
   */
  readonly lease?: Duration.Input | undefined
  /** How long one read waits at the server. A message ends the wait at once. Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** How long the end of the subscription waits for running handlers before it interrupts them. Default 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
  /**
   * The number of consumers that may be lost after they began the handler of a message; then it becomes a dead letter with reason `crashed`. The
   * first hand-out does not count, because it is not noted. Default 3, at least 2: no message is given up before it was tried alone.
   */
  readonly maxCrashes?: number | undefined
  /**
   * How the group treats messages with an ordering key.
   *
   * - `"block"` (the default): messages of one channel with the same key are handled one at a time, over all consumers, in the order in which
   *   they were stored. The next one begins when the acknowledgement of the one before is stored. A message that failed keeps its place: the key
   *   waits through its retries, and goes on when it has become a dead letter.
   * - `"none"`: the key has no meaning.
   *
   * The first subscription of a group decides for the group, until the group is removed. Another one with another value is refused. Messages
   * without a key are not affected. See `docs/ordering.md`.
   */
  readonly ordering?: "block" | "none" | undefined
  /**
   * What happens to a message whose time to live (`expiresIn` of the publish) ends before it is handled: it becomes a dead letter with reason
   * `expired` (the default), or is dropped.
   */
  readonly expired?: "dead-letter" | "drop" | undefined
  /** The destination of reports about its messages. Default: that of the program (`Defaults.reports`). */
  readonly reports?: Reports | undefined
  /**
   * A handler that runs for longer than this is reported once: in the log, in `Health` (while it runs), and in the metric
   * `rotif.process.slow`. It is noticed within a third of the lease. Default: `health.slowHandler` of the program, 5 minutes.
   */
  readonly slowHandler?: Duration.Input | undefined
  /**
   * Pauses the group, in all processes, when it makes this many dead letters within this time (`Groups.pause`, on the channels of this
   * subscription, with the count for a reason). Messages whose time to live has ended do not count. Default: it is not paused.
   */
  readonly pauseWhen?: PauseWhen | undefined
}

/**
 * A storm of dead letters: this many within this time, of all processes of the group that have such an option.
 *
 * @category models
 * @since 0.1.0
 */
export interface PauseWhen {
  /** From 1 to 10,000. */
  readonly dead: number
  /** At least 100 ms. */
  readonly within: Duration.Input
}

/**
 * Options of `exactlyOnce`: how deliveries are recognised as the same piece of work.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExactlyOnce<S extends Channel.Source> {
  /**
   * Makes the key of a message: 1 to 512 bytes. The group handles messages of one channel with the same key to completion once within `ttl`,
   * however often they are published. Default: the stored message itself. Then every message that a publish accepts as new is handled, even if
   * it has the id of an earlier one. If the function throws, or returns no such string, the attempt fails.
   */
  readonly key?: ((message: Message.Message<S>) => string) | undefined
  /** How long a key that is done is remembered, by the clock of the backend. At least the lease. Default 1 day. */
  readonly ttl?: Duration.Input | undefined
}

/**
 * The key that `exactlyOnce.key` made of a message cannot be used. The attempt fails with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOnceKey extends Schema.TaggedError<InvalidOnceKey>()("InvalidOnceKey", {
  message: Schema.String
}) {}

/**
 * The services that a handler needs, without the transaction that a transactional subscription provides.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<R, Transactional extends boolean> = Transactional extends true
  ? Exclude<R, Transaction.Transaction>
  : R

/**
 * What happens around each attempt: options of every subscription with a handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface AttemptOptions<
  S extends Channel.Source,
  E,
  Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
> extends StreamOptions {
  /**
   * Middleware around each attempt, the first outermost. The middleware of the program (`Middleware.layer`) is outside of it. Its errors count
   * as errors of the handler, and `retry` decides about them.
   */
  readonly middleware?: Ms | undefined
  /** How long one attempt may take; then it fails with `TimeoutError`. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
  /**
   * The policy after a failure: a `Schedule`, a delay, a function of (attempt, message, error) to a delay, a decision for each error tag
   * (`Retry.make`), or the name of a policy of `Retry.layer`. The default policy decides about defects and timeouts. Default: the default
   * policy (`Retry.layer`, else `retry` of `Rotif.layer`, else again after `retryDelay`).
   */
  readonly retry?: Retry.PolicyOrName<NoInfer<E | Middleware.ProcessErrors<Ms>>, Message.Message<S>> | undefined
  /**
   * The number of retries after the first attempt; then the message becomes a dead letter with reason `exhausted`. Default 5; if a schedule
   * decides, the number of its steps.
   */
  readonly maxRetries?: number | undefined
  /** How long a failed message waits for its next attempt if `retry` does not decide. Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * Handles each message to completion once. The acknowledgement remembers the message as done in the same step; another delivery of it is
   * then acknowledged without being handled. With `key`, so are other messages with the same key. While one of them is being handled, another
   * one waits, and no attempt is counted. Default `false`.
   *
   * It cannot undo the effects of a handler that failed or was killed. An effect is exactly once if it is part of the transaction, or
   * idempotent. See `docs/exactly-once.md`.
   */
  readonly exactlyOnce?: boolean | ExactlyOnce<S> | undefined
  /**
   * Applies all that the handler publishes and writes through its `Transaction` together with the acknowledgement, or nothing of it. It includes
   * `exactlyOnce`. Default `false`.
   */
  readonly transactional?: Transactional | undefined
}

/**
 * Options of a subscription: those of a stream, the handler, and what happens before and after it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<
  S extends Channel.Source,
  E,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
> extends AttemptOptions<S, E, Ms, Transactional> {
  /**
   * Handles one message. If it succeeds, the message is acknowledged; if it fails or dies, the message is retried. It is interrupted if the
   * lease is lost, and when the subscription ends; then the message is handled again, and no attempt is counted.
   */
  readonly handler: (message: Message.Message<S>) => Effect.Effect<unknown, E, R>
  /** `"manual"`: a handler that succeeds settles nothing, and its message is held until it is settled. Default `"auto"`. */
  readonly ackMode?: "auto" | "manual" | undefined
}

/**
 * An option of a subscription cannot be used. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSubscription
  extends Schema.TaggedError<InvalidSubscription>()("InvalidSubscription", Given.problemFields)
{}
