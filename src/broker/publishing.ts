/** Publishing in the port: new messages, their durability, and the outcomes. */
import type { BroadcastMessage } from "./broadcast.ts"
import type { BrokerError } from "./error.ts"

/**
 * Limits of a channel, besides the default rule that a message is removed when every group has acknowledged it. A message removed by a limit
 * is lost for groups that had not handled it. Where publishers define different limits, a message that one of them keeps is not removed.
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
 * A message to be stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewMessage extends BroadcastMessage {
  /** The message id; made once per publish call and kept by every repetition of it. */
  readonly id: string
  /** The limits that the publisher defines for the channel; `{}`: no limits; `undefined`: it defines nothing. */
  readonly limits?: Limits | undefined
  /** When given, a second message of this channel with the same key within the window is a duplicate, and is not stored. */
  readonly window?: Window | undefined
  /** When given, the message waits for this time before it enters the log. A time that has passed is now. */
  readonly due?: Due | undefined
  /** When true, a message of this id that still waits takes this payload and time, instead of making this one a duplicate. */
  readonly replace?: boolean | undefined
  /** Time to live, from the time it enters the log, or is due. */
  readonly expiresInMillis?: number | undefined
  /** Messages of one channel with the same ordering key are handled one after the other by a group that orders: 1 to 512 bytes. */
  readonly orderingKey?: string | undefined
  /** The replicas and disks that must have the message before its publish ends. */
  readonly durability?: Durability | undefined
}

/**
 * The durability of a message: how many replicas must have it, and whether it must be on disk there and on the master.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  readonly replicas: number
  readonly onDisk: boolean
  /** Time limit of the wait, once the message is stored. */
  readonly timeoutMillis: number
}

/**
 * The requested durability was not reached in time. The message is stored all the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shortfall {
  /** Number of replicas that surely have the message. */
  readonly replicas: number
  /** The problem, unless the time simply ran out. */
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
 * The outcome of one appended message.
 *
 * - `Stored`: it is in the log, once, at `position`.
 * - `Scheduled`: it waits for its time, once.
 * - `Duplicate`: the message `id` was first (their deduplication window is open, or it waits under the same id); nothing was
 *   added. `position` is where that one is in the log, if it was stored there at once.
 * - `Failed`: it is not in the log.
 * - `Uncertain`: it may be in the log; appending a message with the same id again settles it. With `isLasting` it does not: the
 *   outcome can no longer be found out.
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
 * The due time of a message: a delay after the backend has it, or a time of its clock (epoch milliseconds).
 *
 * @category models
 * @since 0.1.0
 */
export type Due = { readonly delayMillis: number } | { readonly atMillis: number }
