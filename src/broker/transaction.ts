/** Transactions in the port: changes that are applied together with an acknowledgement. */
import type { Effect } from "effect"
import { Schema } from "effect"
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
 * The acknowledgement of a delivery, with the messages and writes that are applied with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Commit {
  readonly delivery: Delivery
  /** Deliveries of the same shard, without ordering keys, that are acknowledged in the same step; if this member has lost one of them, nothing is applied. */
  readonly others?: ReadonlyArray<Delivery> | undefined
  readonly messages: ReadonlyArray<NewMessage>
  readonly writes: ReadonlyArray<Write>
}

/**
 * A commit that cannot be applied to the data as it is. Nothing of it was applied, and the delivery is not acknowledged.
 *
 * - `WrongType`: a key holds another type than the write needs.
 * - `NotAnInteger`: a key to be incremented holds no integer of at most 18 digits.
 * - `NoPositionLeft`: another program has used the last position of the log of a channel.
 *
 * @category errors
 * @since 0.1.0
 */
export class CommitRefused extends Schema.TaggedError<CommitRefused>()("CommitRefused", {
  reason: Schema.Literals(["WrongType", "NotAnInteger", "NoPositionLeft"]),
  key: Schema.String,
  message: Schema.String
}) {}

/**
 * The outcome of a commit. `lost`: this member did not hold the delivery, or one of the others, any more, and nothing was applied.
 *
 * @category models
 * @since 0.1.0
 */
export type Committed = "done" | "lost" | CommitRefused

/**
 * Keys of the user in the shard of a channel. Transactions write them, and any program may read them.
 *
 * @category models
 * @since 0.1.0
 */
export interface OwnKeys {
  /** The key of this name in the shard of the channel. */
  readonly keyFor: (channel: string, name: string) => string
  /** Returns the reason why a transaction on this channel cannot write the key, if there is one. */
  readonly problemOf: (
    channel: string,
    key: string
  ) => { readonly reason: "WrongSlot" | "Reserved"; readonly message: string } | undefined
  /** A string, the fields of a hash, or nothing. */
  readonly read: (key: string) => Effect.Effect<string | Readonly<Record<string, string>> | undefined, BrokerError>
}
