/**
 * The part of the port about messages that wait for their first delivery.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { BrokerError } from "./error.ts"
import type { Due } from "./publishing.ts"

/**
 * A message that waits for its first delivery.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledMessage {
  readonly id: string
  readonly channel: string
  readonly dueAtMillis: number
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly expiresInMillis: number | undefined
}

/**
 * Which message: ids belong to a channel.
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
 * What may be done with scheduled messages. What it says of them is decided in one step with what it does: a message is either
 * still waiting, or on its way. An `Uncertain` failure may have taken effect.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledStore {
  /** Removes the message, and ends the deduplication window it has opened, if there is one; whether it still waited. */
  readonly cancel: (message: Reference) => Effect.Effect<boolean, BrokerError>
  /**
   * Changes when it is due (now: it enters the log in this step); whether it still waited. The deduplication window it has opened, if there
   * is one, ends its span after the new due time.
   */
  readonly reschedule: (message: Reference, due: Due) => Effect.Effect<boolean, BrokerError>
  /**
   * A page of one shard in the order of `order`, after a place: at most `limit`, perhaps fewer. `next` is where to go on,
   * `undefined` at the end. A message that cannot be read is left out.
   */
  readonly list: (shard: number, options: {
    readonly after?: Place | undefined
    readonly channel?: string | undefined
    readonly limit: number
  }) => Effect.Effect<
    { readonly messages: ReadonlyArray<ScheduledMessage>; readonly next: Place | undefined },
    BrokerError
  >
  /** How many wait in one channel, or in all. */
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
