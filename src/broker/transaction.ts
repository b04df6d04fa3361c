/** What happens together with an acknowledgement. */
import type { Effect } from "effect"
import { Data } from "effect"
import type { Delivery } from "./delivery.ts"
import type { BrokerError } from "./error.ts"
import type { NewMessage } from "./publishing.ts"

/**
 * A change of a key that belongs to the user, in the same shard as the channel of the delivery (`OwnKeys`).
 *
 * @category models
 * @since 0.1.0
 */
export type Write =
  | { readonly _tag: "Set"; readonly key: string; readonly value: string }
  | { readonly _tag: "HashSet"; readonly key: string; readonly fields: Readonly<Record<string, string>> }
  | { readonly _tag: "Increment"; readonly key: string; readonly by: number }
  | { readonly _tag: "Delete"; readonly key: string }

/**
 * Everything a handler wants to happen together with the acknowledgement of its delivery.
 *
 * @category models
 * @since 0.1.0
 */
export interface Commit {
  readonly delivery: Delivery
  readonly messages: ReadonlyArray<NewMessage>
  readonly writes: ReadonlyArray<Write>
}

/**
 * A commit cannot be applied to the data as it is; nothing of it was applied, and the delivery is not acknowledged.
 *
 * - `WrongType`: a key holds another type than the write needs.
 * - `NotAnInteger`: a key to be incremented holds no integer of at most 18 digits.
 * - `NoPositionLeft`: another program has brought the log of a channel to the last position there is.
 *
 * @category errors
 * @since 0.1.0
 */
export class CommitRefused extends Data.TaggedError("CommitRefused")<{
  readonly reason: "WrongType" | "NotAnInteger" | "NoPositionLeft"
  readonly key: string
  readonly message: string
}> {}

/**
 * What became of a commit: `lost` when this member had no right to the delivery any more; nothing was applied then.
 *
 * @category models
 * @since 0.1.0
 */
export type Committed = "done" | "lost" | CommitRefused

/**
 * Keys that belong to the user, beside the channels of a shard: transactions write them, everybody may read them.
 *
 * @category models
 * @since 0.1.0
 */
export interface OwnKeys {
  /** The key of this name in the shard of the channel. */
  readonly keyFor: (channel: string, name: string) => string
  /** Why a transaction of a delivery of this channel cannot write the key, if it cannot. */
  readonly problemOf: (
    channel: string,
    key: string
  ) => { readonly reason: "WrongSlot" | "Reserved"; readonly message: string } | undefined
  /** A string, the fields of a hash, or nothing. */
  readonly read: (key: string) => Effect.Effect<string | Readonly<Record<string, string>> | undefined, BrokerError>
}
