/** Messages on their way into the log, and what became of them. */
import type { BrokerError } from "./error.ts"

/**
 * Limits on what a channel keeps, beside the default rule (a message is removed when every group has acknowledged it).
 * A message removed by a limit is lost for the groups that had not handled it. Where publishers define different ones, nothing is removed
 * that one of them would keep.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  /** Keep at most about this many messages. */
  readonly maxLength?: number | undefined
  /** Remove messages older than this, in milliseconds of the backend's clock. */
  readonly maxAgeMillis?: number | undefined
  /** Remove messages whose position is lower than this (`"1700000000000-0"`). */
  readonly minId?: string | undefined
}

/**
 * A message on its way into the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewMessage {
  /** The message id; made once per publish call and kept by every repetition of it. */
  readonly id: string
  /** The name of the channel, or its template text (`users.:userId.notices`). */
  readonly channel: string
  /** The encoded payload. */
  readonly payload: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
  /** The limits that the publisher defines for the channel; `{}`: it defines that there are none; `undefined`: it knows nothing of them. */
  readonly limits?: Limits | undefined
  /** When given, a second message of this channel with the same key within so many milliseconds is a duplicate and is not stored. */
  readonly window?: Window | undefined
  /** When given, the message waits for this time before it enters the log; a time that has come is now. */
  readonly due?: Due | undefined
  /** A message of this id that still waits takes this payload and time, instead of making this one a duplicate. */
  readonly replace?: boolean | undefined
  /** How long the message may be handed out, counted from when it enters the log, or from when it is due. */
  readonly expiresInMillis?: number | undefined
  /** Where else it has to be before its publish is over. */
  readonly durability?: Durability | undefined
}

/**
 * What a message has to survive: how many replicas must have it, and whether it must be on disk there and on the master.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  readonly replicas: number
  readonly onDisk: boolean
  /** How long is waited for that, once the message is stored. */
  readonly timeoutMillis: number
}

/**
 * The durability that was asked for was not reached in time. The message is stored all the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shortfall {
  /** How many replicas had the message for sure. */
  readonly replicas: number
  /** What was in the way, where it is not just the time that ran out. */
  readonly problem: string | undefined
}

/**
 * A deduplication window. Keys of different kinds (ids, throttle keys) begin with a letter of their own, so that they never meet.
 *
 * @category models
 * @since 0.1.0
 */
export interface Window {
  readonly key: string
  readonly millis: number
}

/**
 * What became of one appended message.
 *
 * - `Stored`: it is in the log, once, at `position`.
 * - `Scheduled`: it waits for its time, once.
 * - `Duplicate`: the message `id` was first (their deduplication window is open, or it waits under the same id); nothing was
 *   added. `position` is where that one is in the log, if it was stored there at once.
 * - `Failed`: it is not in the log.
 * - `Uncertain`: it may be in the log; appending a message with the same id again settles it. With `isLasting` it does not: nothing tells any
 *   more what became of it.
 *
 * With a `shortfall` the durability it asked for was not reached; appending a message with the same id again stores nothing as long as
 * that one is there, and waits again.
 *
 * @category models
 * @since 0.1.0
 */
export type Appended =
  | { readonly _tag: "Stored"; readonly position: string; readonly shortfall?: Shortfall | undefined }
  | { readonly _tag: "Scheduled"; readonly dueAtMillis: number; readonly shortfall?: Shortfall | undefined }
  | {
    readonly _tag: "Duplicate"
    readonly position: string | undefined
    readonly id: string
    readonly shortfall?: Shortfall | undefined
  }
  | { readonly _tag: "Failed"; readonly error: BrokerError }
  | { readonly _tag: "Uncertain"; readonly error: BrokerError; readonly isLasting?: boolean | undefined }

/**
 * When a message is due: so long after the backend has it, or at a time of its clock (epoch milliseconds).
 *
 * @category models
 * @since 0.1.0
 */
export type Due = { readonly delayMillis: number } | { readonly atMillis: number }
