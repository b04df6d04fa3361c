/**
 * Recurring messages in the port: definitions, and the time of the next tick of each.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { Delivery } from "./delivery.ts"
import type { BrokerError } from "./error.ts"
import type { Limits, Window } from "./publishing.ts"

/**
 * A recurring message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition extends Pick<Delivery, "channel" | "payload" | "headers" | "params"> {
  /** Unique in the namespace. */
  readonly key: string
  /** The recurrence. The backend only compares it. */
  readonly recurrence: string
  readonly expiresInMillis: number | undefined
  readonly orderingKey?: string | undefined
  /** The limits of the channel, as in `NewMessage`; `list` does not return them. */
  readonly limits?: Limits | undefined
}

/**
 * A definition with its next tick.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recurring extends Definition {
  readonly nextAtMillis: number
}

/**
 * Due ticks.
 *
 * @category models
 * @since 0.1.0
 */
export interface DueTicks {
  /** The backend's clock. */
  readonly nowMillis: number
  readonly ticks: ReadonlyArray<Pick<Recurring, "key" | "channel" | "recurrence" | "nextAtMillis">>
  /** 0 when some are due; `undefined` when nothing recurs. */
  readonly nextInMillis: number | undefined
}

/**
 * A step of a definition from one tick to the next, with the messages that are due.
 *
 * @category models
 * @since 0.1.0
 */
export interface Advance {
  readonly key: string
  readonly channel: string
  /** The recurrence by which the next tick was computed. */
  readonly recurrence: string
  /** The current tick. If it is another one by now, another process was faster and nothing is done. */
  readonly fromMillis: number
  readonly nextAtMillis: number
  /** One message for each: its id and its window. The definition has the rest. */
  readonly messages: ReadonlyArray<{ readonly id: string; readonly window: Window }>
}

/**
 * Recurring messages as the port has them: definitions by key, and ticks that are due.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecurringStore {
  /** The backend's clock. */
  readonly nowMillis: (shard: number) => Effect.Effect<number, BrokerError>
  /**
   * Stores a definition in the shard of its channel. Its next tick is `nextAtMillis`, or stays what it was when the key had the same
   * recurrence; that time is returned. The same key is removed from other shards.
   */
  readonly upsert: (definition: Definition, nextAtMillis: number) => Effect.Effect<number, BrokerError>
  /** Removes a definition, and returns whether there was one. */
  readonly remove: (key: string) => Effect.Effect<boolean, BrokerError>
  /** All definitions of one shard, by their next tick. */
  readonly list: (shard: number) => Effect.Effect<ReadonlyArray<Recurring>, BrokerError>
  /** Returns at most `limit` due ticks. */
  readonly due: (shard: number, limit: number) => Effect.Effect<DueTicks, BrokerError>
  /** Publishes and advances in one step; `false` when the current tick is not the given one. */
  readonly advance: (shard: number, advance: Advance) => Effect.Effect<boolean, BrokerError>
  /** Completes when, after this call, a definition changes or appears. */
  readonly awaitChange: (shard: number) => Effect.Effect<void>
}
