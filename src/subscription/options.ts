/** The options of a subscription, what subscriptions share, and the errors of both. */
import type { DateTime, Duration, Effect } from "effect"
import { Data } from "effect"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import type * as Retry from "../Retry.ts"
import type * as Transaction from "../Transaction.ts"
import type * as Reporting from "../internal/reports.ts"
import type * as Middleware from "../middleware/definition.ts"

/**
 * Where a new group begins on channels that exist already: with the oldest message that another group has not settled (without other
 * groups, with the oldest there is; never with what all have settled and only waits to be removed), with the next one published, after a
 * position (as in a receipt), or with the first one published at or after a time.
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
 * What every subscription of a program shares unless it says otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface Defaults {
  /** The group of a subscription that names none, from its channel name or pattern. Default: that name itself. */
  readonly groupName?: ((source: string) => string) | undefined
  /** The first part of a consumer's name; a random part is added. Default `host:pid`. */
  readonly consumerName?: (() => string) | undefined
  /** Default 1. */
  readonly concurrency?: number | undefined
  /** Default 30 seconds. */
  readonly lease?: Duration.Input | undefined
  /** Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** Default 30 seconds; with `Rotif.layerMemory` 0. */
  readonly drainTimeout?: Duration.Input | undefined
  /** Retries after the first attempt, for every subscription that does not say otherwise. Default 5. */
  readonly maxRetries?: number | undefined
  /** Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * The default policy: what happens after a failure where the subscription has no `retry`, and after defects and timeouts, which no
   * `retry` decides about, unless `Retry.layer` has a default. Default: again after `retryDelay`.
   */
  readonly retry?: Retry.AnyRule | undefined
  /** Default 3. */
  readonly maxCrashes?: number | undefined
  /**
   * Where is told what goes wrong with messages: dead letters, defects, and what is given back again and again. A level of the log, `"None"`,
   * or a function that gets every report. Default `"Warn"`.
   *
   * **Details**: in the log a group has at most 10 lines in 10 seconds; then a line tells how many were left out. A failure that is retried is
   * a line of level `Debug`; from the eighth attempt on each doubling is a warning. A function gets all of it. It is called for up to 100
   * reports at a time, each call may take 5 seconds, and up to 10,000 reports wait for it; more are left out, and a line tells how many.
   */
  readonly reports?: Reports | undefined
}

/**
 * Where reports go: a level of the log, nowhere, or a function.
 *
 * @category models
 * @since 0.1.0
 */
export type Reports = Reporting.Sink

/**
 * What went wrong with one message of a group.
 *
 * - `DeadLetter`: the group gave it up; `reason` and `tag` say why. - `Defect`: its handler died, and it is tried again.
 * - `Failure`: its handler failed, and it is tried again. - `Interrupted`: its handler ended by interruption, and it is given back.
 * - `Released`: it was given back by hand. - `Busy`: another message with its `exactlyOnce` key is being handled.
 * - `LeaseLost`: its lease ended before it was settled. - `SlowHandler`: its handler runs for longer than `slowHandler`.
 * - `Expired`: its time to live ended, and it is dropped (`expired: "drop"`); a line for debugging, and a warning for the 8th, 16th, 32nd, … of a
 * channel. - `NotJudged`: what decides about it died, which is a mistake of Rotif's; it is given back.
 *
 * Those that may happen to one message again and again (`Interrupted`, `Released`, `Busy`, `NotJudged`) are told at rounds 1, 2, 4, 8, ….
 *
 * @category models
 * @since 0.1.0
 */
export type Report = Reporting.Report

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
   * At most so many messages wait in this process beside those being handled; they are leased to it. At most `concurrency + prefetch` are held,
   * over all channels and shards. Default: about as many as the handlers finish in 50 ms, by the time they took, from 0 to 100 or `concurrency`,
   * whichever is more; with `ackMode: "manual"` as many as `concurrency`. What has waited for 250 ms while all handlers are busy is given back if
   * another consumer of the group reads its channel; that costs no attempt.
   */
  readonly prefetch?: number | undefined
  /** Where a new group begins. Default `"earliest"`. It has no effect on a group that exists. */
  readonly startFrom?: StartFrom | undefined
  /**
   * How long a message belongs to this consumer without a renewal (it is renewed three times in this time). It decides how long
   * the messages of a killed process wait; the consumers of one group use the same. Default 30 seconds, at least 100 ms.
   */
  readonly lease?: Duration.Input | undefined
  /** How long one read waits at the server. A message ends the wait at once. Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** How long the end of the subscription waits for running handlers before it interrupts them. Default 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
  /**
   * After this many lost consumers that had begun its handler, a message becomes a dead letter with reason `crashed`. The first hand-out does
   * not count, because nothing is noted of it. Default 3; less than 2 is 2, because nothing is given up before it was tried alone.
   */
  readonly maxCrashes?: number | undefined
  /**
   * What becomes of a message that is not handed to the handler because its time to live (`expiresIn` of the publish) has ended: a dead
   * letter with reason `expired` (the default), or nothing.
   */
  readonly expired?: "dead-letter" | "drop" | undefined
  /** Where is told what goes wrong with its messages. Default: as the program says (`Defaults.reports`). */
  readonly reports?: Reports | undefined
  /**
   * A handler that runs for longer is told once: in the log, in `Health` (as long as it runs), and in the metric `rotif.process.slow`. It is
   * noticed within a third of the lease. Default: `health.slowHandler` of the program, 5 minutes.
   */
  readonly slowHandler?: Duration.Input | undefined
}

/**
 * How deliveries are recognised as the same piece of work.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExactlyOnce<S extends Channel.Source> {
  /**
   * The key of a message: 1 to 512 bytes. Messages of one channel with the same key are handled to completion once by the group
   * within `ttl`, however often they are published. Default: the stored message itself, so that whatever a publish accepts as new is
   * handled, also when it has the id of an earlier one. A function that throws, or gives no such string, is a failure of the attempt.
   */
  readonly key?: ((message: Message.Message<S>) => string) | undefined
  /** For how long it counts that a key was done, by the clock of the backend. At least the lease. Default 1 day. */
  readonly ttl?: Duration.Input | undefined
}

/**
 * The key that `exactlyOnce` made of a message cannot be used: it is a failure of the attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOnceKey extends Data.TaggedError("InvalidOnceKey")<{
  readonly message: string
}> {}

/**
 * What a handler needs beside the transaction that a transactional subscription gives it.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<R, Transactional extends boolean> = Transactional extends true
  ? Exclude<R, Transaction.Transaction>
  : R

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
> extends StreamOptions {
  /**
   * Handles one message. When it succeeds the message is acknowledged, when it fails or dies it is retried. It is interrupted when
   * the lease is lost, and at the end of the subscription; the message is then handled again, and no attempt is counted.
   */
  readonly handler: (message: Message.Message<S>) => Effect.Effect<unknown, E, R>
  /**
   * Middleware around each attempt, the first outermost; the middleware of the program (`Middleware.layer`) is outside of it. Its errors
   * are errors of the handler, for `retry` to decide about.
   */
  readonly middleware?: Ms | undefined
  /** How long one attempt may take; longer is a failure (`TimeoutError`). Default: as long as it wants. */
  readonly timeout?: Duration.Input | undefined
  /** `"manual"`: the success of the handler settles nothing; the message is held until it is settled. Default `"auto"`. */
  readonly ackMode?: "auto" | "manual" | undefined
  /**
   * The policy after a failure: a `Schedule`, a delay, a function of (attempt, message, error) to a delay, a decision for each error tag
   * (`Retry.make`), or the name of a policy of `Retry.layer`. The default policy decides about defects and timeouts. Default: the default
   * policy (`Retry.layer`, else `retry` of `Rotif.layer`, else again after `retryDelay`).
   */
  readonly retry?: Retry.PolicyOrName<NoInfer<E | Middleware.ProcessErrors<Ms>>, Message.Message<S>> | undefined
  /**
   * Retries after the first attempt; then the message becomes a dead letter with reason `exhausted`. Default 5; where a schedule
   * decides, as many as it has.
   */
  readonly maxRetries?: number | undefined
  /** How long a failed message waits for its next attempt where `retry` does not decide. Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * Each message is handled to completion once: it is remembered as done in the same step as its acknowledgement, and another
   * delivery of it is then acknowledged without being handled; with `key`, other messages of the same key are, too. While one is being
   * handled, another one waits; no attempt is counted. Default `false`.
   *
   * It cannot undo what a handler did before it failed or was killed: an effect is exactly once when it is part of the
   * transaction, or itself idempotent. See `docs/exactly-once.md`.
   */
  readonly exactlyOnce?: boolean | ExactlyOnce<S> | undefined
  /**
   * What the handler publishes and writes through its `Transaction` is applied together with the acknowledgement, or not at all. It
   * includes `exactlyOnce`. Default `false`.
   */
  readonly transactional?: Transactional | undefined
}

/**
 * An option of a subscription cannot be used. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSubscription extends Data.TaggedError("InvalidSubscription")<{
  readonly option: string
  readonly message: string
}> {}
