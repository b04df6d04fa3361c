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
import type { InspectionStore } from "./broker/inspection.ts"
import type { Member, Membership } from "./broker/member.ts"
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
  /** How many shards the data is spread over. */
  readonly shards: number
  /**
   * Whether what happens has to be looked for now and then, because the announcement of it may be lost. Otherwise whoever waits is told
   * for sure, and nothing has to be done while nothing happens.
   */
  readonly isPolled: boolean
  /**
   * Waits until it is worth looking for what has become old or needless: for this long, and where nothing is polled, from the first
   * change on.
   */
  readonly rest: (millis: number) => Effect.Effect<void>
  /** The shards a group with this selector has to read. */
  readonly shardsOf: (selector: Selector) => ReadonlyArray<number>
  /** Stores messages in order (per channel); one outcome for each, in the order given. */
  readonly append: (messages: ReadonlyArray<NewMessage>) => Effect.Effect<ReadonlyArray<Appended>>
  /** Fails with `Refused` when the backend has no way to confirm this, and warns when it will hardly ever be reached. */
  readonly checkDurability: (durability: Durability) => Effect.Effect<void, BrokerError>
  /**
   * Registers the group, creates it where it is missing, and returns a member. Closing the scope removes the member; what
   * it still holds stays leased to it and is claimed by others when the lease expires.
   */
  readonly join: (membership: Membership) => Effect.Effect<Member, BrokerError, Scope.Scope>
  /**
   * Makes at most `limit` waiting messages whose time has come ready, those that are due longest first. `nextInMillis` is 0 when
   * more are due, `undefined` when none waits. With `only: "retries"` those that wait for their first delivery stay; `nextInMillis` is then
   * when to look again.
   */
  readonly promote: (shard: number, limit: number, only?: "retries") => Effect.Effect<
    { readonly moved: number; readonly nextInMillis: number | undefined },
    BrokerError
  >
  /** Completes when a message has begun to wait for an earlier time than any other, from the moment it is called. */
  readonly awaitEarlier: (shard: number) => Effect.Effect<void>
  /** Messages that wait for their first delivery. */
  readonly scheduled: ScheduledStore
  /** Definitions of recurring messages. */
  readonly recurring: RecurringStore
  /** Moves at most `limit` messages of a shard's outbox, where commits put what goes to other shards, to their channels; how many. */
  readonly relay: (shard: number, limit: number) => Effect.Effect<number, BrokerError>
  /** Completes when something was put into the outbox, from the moment it is called. */
  readonly awaitOutbox: (shard: number) => Effect.Effect<void>
  /** The keys that transactions write. */
  readonly own: OwnKeys
  /** Removes what every group has acknowledged and what is beyond its channel's limits; how many were removed. */
  readonly trim: (shard: number) => Effect.Effect<number, BrokerError>
  /** Completes when something was settled that may be to be removed. */
  readonly awaitTrim: (shard: number) => Effect.Effect<void>
  /** Removes the group from all channels of the selector, with its deliveries. Dead letters stay. */
  readonly removeGroup: (group: string, selector: Selector) => Effect.Effect<void, BrokerError>
  /** Counts, for the channels of the selector. Bounded by the number of channels and groups, not of messages. */
  readonly info: (selector: Selector) => Effect.Effect<BrokerInfo, BrokerError>
  /** Counts and totals of channels and groups. */
  readonly stats: StatsStore
  /** Asks every part of the backend for an answer. */
  readonly ping: Effect.Effect<void, BrokerError>
  /** What groups gave up on. */
  readonly letters: LetterStore
  /** What cannot be, and is. */
  readonly inspection: InspectionStore
  /** Messages to whoever listens now. */
  readonly broadcast: BroadcastPort
}>()("rotif/Broker") {}
