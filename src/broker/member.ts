/** Members: one consumer of one group in one shard, and its operations on deliveries. */
import type { Effect } from "effect"
import type { Delivery, Failure } from "./delivery.ts"
import type { BrokerError, GroupRemoved } from "./error.ts"
import type { Pause } from "./groups.ts"
import type { Ordering } from "./ordering.ts"
import type { Selector, Start } from "./selector.ts"
import type { Commit, Committed } from "./transaction.ts"

/**
 * A delivery that goes back to its group: at once (`delayMillis` 0) or after a delay, as the given attempt. No other group sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Redelivery {
  readonly delivery: Delivery
  readonly delayMillis: number
  /** The attempt number of the next hand-out: the same one for a release, one more for a retry. */
  readonly attempt: number
}

/**
 * A delivery that is never to be tried again by this group, with its failure.
 *
 * @category models
 * @since 0.1.0
 */
export interface Burial {
  readonly delivery: Delivery
  readonly failure: Failure
}

/**
 * The result of a claim of expired leases.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claimed {
  readonly deliveries: ReadonlyArray<Delivery>
  /**
   * Time until the next lease can expire, when the next claim is due. At least 1, at most the lease. `undefined`: no other member holds a
   * message, and `awaitLease` completes when one does.
   */
  readonly nextInMillis: number | undefined
  /** Number of deliveries of lost members whose message a limit had removed. They are lost for this group. */
  readonly vanished: number
  /** The settings of the live members of the group, as far as they are known; each once. */
  readonly settings: ReadonlyArray<GroupSettings>
}

/**
 * The exactly-once key of a delivery: two deliveries of one group and channel with the same key are one piece of work.
 *
 * @category models
 * @since 0.1.0
 */
export interface Keyed {
  readonly delivery: Delivery
  readonly key: string
}

/**
 * The result of beginning a delivery by its key. `mine`: the key was free, and this delivery holds it now; `done`: it was done before; `busy`:
 * another delivery with this key is in progress.
 *
 * @category models
 * @since 0.1.0
 */
export type Begun = "mine" | "done" | "busy"

/**
 * Settings that the members of a group should share.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupSettings {
  /** How long a delivery belongs to a member without being renewed. Where members differ, deliveries are taken over after the longest. */
  readonly leaseMillis: number
  /** How long it counts that a key was done; only members that `begin` their deliveries need it. At least the lease. */
  readonly doneMillis?: number | undefined
  /** Number of crashes after which a message is given up. The backend only passes it on to the other members. */
  readonly maxCrashes?: number | undefined
}

/**
 * A request to join a group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Membership extends GroupSettings {
  /**
   * The first member that says it decides for its group, until the group is removed; `join` fails for others with `OrderingConflict`. A member
   * that says nothing goes by what was decided, which is `none` before.
   */
  readonly ordering?: Ordering | undefined
  /**
   * Asked when a settlement is sent: whether this member takes the next messages of the ordering keys that it frees (`Member.takeNext`).
   * Otherwise they are ready for any member. Default: it takes none.
   */
  readonly isTaking?: (() => boolean) | undefined
  readonly shard: number
  readonly group: string
  /** Unique among the live members: two members of one name take each other's deliveries. */
  readonly consumer: string
  readonly selector: Selector
  readonly start: Start
}

/**
 * One consumer of one group in one shard. All settlements are fenced: what they return are the deliveries this member no
 * longer holds (their lease expired and another member has them); nothing was done for these.
 *
 * **Details**: in a group that orders, `read`, `claim` and `takeNext` return only heads of their keys and messages without a key. `redeliver`
 * keeps the key of a message closed. A dead letter that is requeued is a new arrival: it goes behind what waits for its key when it is read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Member {
  /**
   * Waits until there are messages, at most `blockMillis`, and leases them to this member: at most `count`, of all channels together.
   * Empty after the wait or a `wake`, or when all that came waits for its ordering key. Redeliveries come before new messages, and no channel keeps another one waiting for ever. After
   * a lost connection it also returns what had been handed out to this member in a reply that never arrived.
   * One call of `read` or `awaitReady` at a time.
   */
  readonly read: (
    count: number,
    blockMillis: number
  ) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError | GroupRemoved>
  /**
   * Waits until there may be messages to read, at most `blockMillis`, and takes none: a caller without room for a waiting `read` makes room when
   * this returns true. False after the wait or a `wake`.
   */
  readonly awaitReady: (blockMillis: number) => Effect.Effect<boolean, BrokerError | GroupRemoved>
  /** Makes a waiting `read` or `awaitReady` return now, with what it has. */
  readonly wake: Effect.Effect<void>
  /** Returns those of these channels that another live member of the group reads too. */
  readonly shared: (channels: ReadonlySet<string>) => Effect.Effect<ReadonlySet<string>, BrokerError>
  /**
   * Takes the deliveries that settlements and commits of this member have handed over since the last call, also those of a settlement that
   * failed in the end. They are leased to this member. No delivery is returned twice, neither here nor by `read` and `claim`.
   */
  readonly takeNext: () => ReadonlyArray<Delivery>
  readonly ack: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Acknowledges deliveries that are not handled: unlike `ack` it frees their keys. */
  readonly drop: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly redeliver: (items: ReadonlyArray<Redelivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly bury: (items: ReadonlyArray<Burial>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Restarts the leases of these deliveries. */
  readonly renew: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /**
   * Begins deliveries by key, in order. What is `mine` stays so while its lease is renewed: `ack` and `commit` then remember the
   * key as done in the same step, and refuse when another delivery has taken the key over; `drop`, `redeliver` and `bury` free it.
   */
  readonly begin: (items: ReadonlyArray<Keyed>) => Effect.Effect<ReadonlyArray<Begun>, BrokerError>
  /** Applies each commit wholly or not at all: its messages, its writes, its acknowledgement, its key. */
  readonly commit: (commits: ReadonlyArray<Commit>) => Effect.Effect<ReadonlyArray<Committed>, BrokerError>
  /**
   * Records that the handlers of these suspects begin, and restarts their leases. When this member is lost before they are settled, that counts
   * as a crash of each. A settlement deletes the record.
   */
  readonly beginTrial: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Deletes the record of `beginTrial`: if this member is lost, these deliveries were not the cause. */
  readonly endTrial: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<void, BrokerError>
  /** Takes over at most `count` deliveries of this group whose lease has expired, by the longest lease of its live members. With 0 it takes none. */
  readonly claim: (count: number) => Effect.Effect<Claimed, BrokerError | GroupRemoved>
  /**
   * Completes with the pauses of the group that are in force when they are others than this member keeps; at first it keeps none. What a pause
   * covers is neither read nor claimed from then on; a read that was under way may still bring something. A change is told by an event, and found
   * within half a lease if the event was lost.
   */
  readonly awaitPauses: Effect.Effect<ReadonlyArray<Pause>, BrokerError | GroupRemoved>
  /**
   * Tells the backend that this member keeps these pauses: no read of it is under way that began before it knew them, and it begins no message that
   * they cover.
   */
  readonly keepPauses: (pauses: ReadonlyArray<Pause>) => Effect.Effect<void, BrokerError>
  /** Completes when another member has joined the group since the last call of `shared`; never on a backend that is polled (`Broker.isPolled`). */
  readonly awaitJoin: Effect.Effect<void>
  /** Fails once the group is known to be removed: by an event, or by the next `read` or `claim`. */
  readonly awaitRemoval: Effect.Effect<never, GroupRemoved>
  /** Completes when another member holds a message that this one may have to take over. */
  readonly awaitLease: Effect.Effect<void>
}
