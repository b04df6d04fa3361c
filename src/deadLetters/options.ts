/** The options of operations on dead letters, and the error for those that cannot be used. */
import type { Duration } from "effect"
import type { Effect } from "effect"
import type * as Channel from "../Channel.ts"
import type { DeadLetter } from "../DeadLetter.ts"
import { InvalidDeadLetterOption } from "../DeadLetter.ts"
import type * as Retry from "../Retry.ts"
import * as Given from "../internal/optionChecks.ts"

/**
 * Options of `list`: the size of a page, where it begins, and the order.
 *
 * @category models
 * @since 0.1.0
 */
export interface PageOptions {
  /** Letters on a page, 1 to 1,000. Default 100. */
  readonly limit?: number | undefined
  /** The `cursor` of the previous page. */
  readonly cursor?: string | undefined
  /** The order of death: `"newest"` (the default) or `"oldest"` first. */
  readonly order?: "newest" | "oldest" | undefined
}

/**
 * A page of dead letters, and the `cursor` where the next page begins; without a `cursor` it is the last page.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly letters: ReadonlyArray<DeadLetter>
  readonly cursor: string | undefined
}

/**
 * Another payload for a message that is requeued.
 *
 * @category models
 * @since 0.1.0
 */
export interface Edit<C extends Channel.Any> {
  readonly channel: C
  readonly payload: Channel.PayloadOf<C>
}

/**
 * Options of `requeueAll`: the limit, the rate, and whether anything is moved.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequeueAllOptions {
  /** Requeues at most this many letters. */
  readonly limit: number
  /** Requeues at most this many letters a second. Default: as fast as possible. */
  readonly rate?: number | undefined
  /** Only counts the letters that would be requeued. Default `false`. */
  readonly dryRun?: boolean | undefined
  /** Runs after each batch. */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/**
 * How far `requeueAll` is: the letters found, and the letters moved.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  /** Letters found. */
  readonly matched: number
  /** Letters requeued by this call. Fewer than `matched` if another call took them first, if they cannot be read, or in a dry run. */
  readonly moved: number
}

/**
 * How long dead letters are kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retention {
  /** Letters older than this are deleted. Default 90 days; `"Infinity"`: never. */
  readonly maxAge?: Duration.Input | undefined
  /** At most this many letters are kept in all; the oldest are deleted first. Default 100,000; `Infinity`: no limit. */
  readonly maxCount?: number | undefined
  /** How often one of the processes applies these limits. Default 1 minute. */
  readonly interval?: Duration.Input | undefined
  /** Whether the limits are applied automatically. `applyRetention` applies them in either case. Default `true`. */
  readonly enabled?: boolean | undefined
  /**
   * Archives letters before they are deleted, at most 100 at a time. If it fails nothing is deleted, and it gets the letters again; also after
   * a crash, so that it gets each letter at least once. A call that takes longer than 30 seconds is interrupted, and has failed. Default: none.
   *
   * **Details**: an archive may publish to a channel. Use `dlq-archive`, or a name below it (`dlq-archive.orders`): no wildcard of a
   * subscription matches these names, and dead letters of these channels are deleted without being archived again.
   */
  readonly archive?: ((letters: ReadonlyArray<DeadLetter>) => Effect.Effect<void, unknown>) | undefined
  /** The channel that `archive` publishes to, if it has another name: dead letters of it are deleted without being archived again. */
  readonly archiveChannel?: string | undefined
}

/**
 * Options of a stream of dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions {
  /** The name of the subscription. Processes with the same name share the letters; each name gets every letter. Default `"dead-letters"`. */
  readonly name?: string | undefined
  /** Only letters of this group. Others are never offered under this name. Default: letters of all groups. */
  readonly group?: string | undefined
  /** Where a new name begins: `"earliest"` (the default) with the oldest letter, `"latest"` with the next one. */
  readonly startFrom?: "earliest" | "latest" | undefined
  /** How many letters are handled at a time. Default 1. */
  readonly concurrency?: number | undefined
  /** How long a letter belongs to this process without a renewal. It is renewed three times in this span. Default 30 seconds, at least 100 ms. */
  readonly lease?: Duration.Input | undefined
  /** A handler that runs for longer is reported once, in the log and in the metric `rotif.process.slow`. Default 5 minutes. */
  readonly slowHandler?: Duration.Input | undefined
  /** Fallback poll interval, in case a notification is lost. Default 30 seconds. */
  readonly checkInterval?: Duration.Input | undefined
  /** The end of the subscription waits for running handlers for at most this long, then interrupts them. Default: that of the layer, 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
}

/**
 * Options of a subscription to dead letters: those of a stream, the handler, and its retry policy.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions<L, E, R> extends StreamOptions {
  /**
   * Handles one letter. `letter.ack` deletes it. If the handler succeeds without settling the letter, it is kept, and is not offered again
   * under this name. If the handler fails or dies, the letter is offered again after a delay.
   */
  readonly handler: (letter: L) => Effect.Effect<unknown, E, R>
  /**
   * The policy for letters whose handler failed, or the name of one of `Retry.layer`; the attempt is `offerCount`. When the policy ends, the
   * letter is kept. Default: after 1 second, then twice as long each time, up to 5 minutes.
   */
  readonly retry?: Retry.AnyRule | Retry.Name | undefined
}

/** Turns a problem with an option into the error of this module. */
export const read = Given.failing(InvalidDeadLetterOption)
