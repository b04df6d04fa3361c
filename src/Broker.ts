/**
 * The port between Rotif and a backend: the state machine of a delivery, and nothing else.
 *
 * Everything above it (channels, schemas, retry policies, subscriptions) is the same on every backend; everything
 * below it (`RedisBroker`, `MemoryBroker`) knows nothing of schemas and policies. `test/contract/broker.ts` is its contract.
 *
 * ```text
 *            append                    read                     ack
 * publisher ───────▶ ready (in the log) ────▶ leased (a member) ───▶ done
 *                      ▲                        │  │   │
 *                      │ promote, when due      │  │   └─ bury ────▶ dead letter
 *                      └────────── waiting ◀────┘  └ lease expires: claim by another member
 *                                      redeliver
 * ```
 *
 * @since 0.1.0
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { BroadcastPort } from "./broker/broadcast.ts"
import type { LetterStore } from "./broker/deadLetters.ts"
import type { BrokerError } from "./broker/error.ts"
import type { GroupStore } from "./broker/groups.ts"
import type { InspectionStore } from "./broker/inspection.ts"
import type { Member, Membership } from "./broker/member.ts"
import type { OrderingConflict } from "./broker/ordering.ts"
import type { Appended, Durability, NewMessage } from "./broker/publishing.ts"
import type { RecurringStore } from "./broker/recurring.ts"
import type { ScheduledStore } from "./broker/scheduled.ts"
import type { Selector } from "./broker/selector.ts"
import type { BrokerInfo, StatsStore } from "./broker/statistics.ts"
import type { OwnKeys } from "./broker/transaction.ts"

export * from "./broker/error.ts"
export * from "./broker/selector.ts"
export * from "./broker/publishing.ts"
export * from "./broker/delivery.ts"
export * from "./broker/deliveries.ts"
export * from "./broker/member.ts"
export * from "./broker/ordering.ts"
export type * from "./broker/groups.ts"
export * from "./broker/transaction.ts"
export * from "./broker/deadLetters.ts"
export * from "./broker/scheduled.ts"
export * from "./broker/recurring.ts"
export * from "./broker/statistics.ts"
export * from "./broker/inspection.ts"
export * from "./broker/broadcast.ts"

/**
 * The service every backend provides.
 *
 * @category services
 * @since 0.1.0
 */
export class Broker extends Context.Service<Broker, {
  /** Number of shards over which the data is spread. */
  readonly shards: number
  /**
   * Whether events may be lost, so that waiting loops have to poll now and then. Otherwise every event arrives, and nothing is done while
   * nothing happens.
   */
  readonly isPolled: boolean
  /**
   * Waits until the next trimming is worth while: for this long, and where nothing is polled, from the first change on.
   */
  readonly rest: (millis: number) => Effect.Effect<void>
  /** Returns the shards that a group with this selector reads. */
  readonly shardsOf: (selector: Selector) => ReadonlyArray<number>
  /** Stores messages, in order on each channel. Returns one outcome for each message, in the given order. */
  readonly append: (messages: ReadonlyArray<NewMessage>) => Effect.Effect<ReadonlyArray<Appended>>
  /** Fails with `Refused` when the backend cannot confirm this durability, and warns when it has too few replicas for it. */
  readonly checkDurability: (durability: Durability) => Effect.Effect<void, BrokerError>
  /**
   * Registers the group, creates it where it is missing, and returns a member. Closing the scope removes the member. The messages that it still
   * holds stay leased to it, and other members claim them when the lease expires.
   */
  readonly join: (membership: Membership) => Effect.Effect<Member, BrokerError | OrderingConflict, Scope.Scope>
  /**
   * Makes at most `limit` due messages ready, the longest due first. `nextInMillis` is 0 when more are due, and `undefined` when none waits. With
   * `only: "retries"` messages that wait for their first delivery stay; `nextInMillis` is then the time until the next call.
   */
  readonly promote: (shard: number, limit: number, only?: "retries") => Effect.Effect<
    { readonly moved: number; readonly nextInMillis: number | undefined },
    BrokerError
  >
  /** Completes when, after this call, a message begins to wait for an earlier time than all others. */
  readonly awaitEarlier: (shard: number) => Effect.Effect<void>
  /** Messages that wait for their first delivery. */
  readonly scheduled: ScheduledStore
  /** Definitions of recurring messages. */
  readonly recurring: RecurringStore
  /** Moves at most `limit` messages of a shard's outbox, where commits put messages for other shards, to their channels. Returns how many. */
  readonly relay: (shard: number, limit: number) => Effect.Effect<number, BrokerError>
  /** Completes when, after this call, a message is put into the outbox. */
  readonly awaitOutbox: (shard: number) => Effect.Effect<void>
  /** The keys that transactions write. */
  readonly own: OwnKeys
  /** Removes messages that every group has acknowledged or that are beyond the limits of their channel. Returns how many. */
  readonly trim: (shard: number) => Effect.Effect<number, BrokerError>
  /** Completes when a settled message may be ready for removal. */
  readonly awaitTrim: (shard: number) => Effect.Effect<void>
  /** Removes the group from all channels of the selector, with its deliveries. Dead letters stay. */
  readonly removeGroup: (group: string, selector: Selector) => Effect.Effect<void, BrokerError>
  /** Groups, their members and their pauses. */
  readonly groups: GroupStore
  /** Counts for the channels of the selector. The cost grows with the number of channels and groups, not of messages. */
  readonly info: (selector: Selector) => Effect.Effect<BrokerInfo, BrokerError>
  /** Counts and totals of channels and groups. */
  readonly stats: StatsStore
  /** Asks every part of the backend for an answer. */
  readonly ping: Effect.Effect<void, BrokerError>
  /** Dead letters. */
  readonly letters: LetterStore
  /** Integrity checks. */
  readonly inspection: InspectionStore
  /** Pub/Sub mode: messages to the listeners of the moment. */
  readonly broadcast: BroadcastPort
}>()("rotif/Broker") {}
