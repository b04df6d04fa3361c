/**
 * Scheduled messages in the port: messages that wait for their first delivery.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { Delivery } from "./delivery.ts"
import type { BrokerError } from "./error.ts"
import type { Due } from "./publishing.ts"

/**
 * A reference to a message: its channel and id.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reference {
  readonly channel: string
  readonly id: string
}

/**
 * A place in the order of all scheduled messages; see `order`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place extends Reference {
  readonly dueAtMillis: number
}

/**
 * A message that waits for its first delivery.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledMessage extends Place, Pick<Delivery, "payload" | "headers" | "params" | "orderingKey"> {
  readonly expiresInMillis: number | undefined
}

/**
 * Operations on scheduled messages. Each is one atomic step: a message either still waits, or is in the log. An operation that fails with
 * `Uncertain` may have taken effect.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledStore {
  /** Removes the message, and ends the deduplication window it has opened, if any. Returns whether it still waited. */
  readonly cancel: (message: Reference) => Effect.Effect<boolean, BrokerError>
  /**
   * Changes the due time (now: the message enters the log in this step), and returns whether it still waited. The deduplication window it has
   * opened, if any, then ends its full length after the new due time.
   */
  readonly reschedule: (message: Reference, due: Due) => Effect.Effect<boolean, BrokerError>
  /**
   * Lists a page of one shard in the order of `order`, after a place: at most `limit` messages, perhaps fewer. `next` is the place to continue
   * after, `undefined` at the end. A message that cannot be read is left out.
   */
  readonly list: (shard: number, options: {
    readonly after?: Place | undefined
    readonly channel?: string | undefined
    readonly limit: number
  }) => Effect.Effect<
    { readonly messages: ReadonlyArray<ScheduledMessage>; readonly next: Place | undefined },
    BrokerError
  >
  /** Counts the scheduled messages of one channel, or of all. */
  readonly count: (channel: string | undefined) => Effect.Effect<number, BrokerError>
}

/**
 * The order in which messages become due. At the same time: by channel, then id, in the order of their bytes.
 *
 * @category operations
 * @since 0.1.0
 */
export const order = (a: Place, b: Place): number =>
  a.dueAtMillis - b.dueAtMillis ||
  Buffer.compare(Buffer.from(`${a.channel}\n${a.id}`), Buffer.from(`${b.channel}\n${b.id}`))
