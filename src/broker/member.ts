/** One consumer of one group in one shard: what it may do with its deliveries. */
import type { Effect } from "effect"
import type { Delivery, Failure } from "./delivery.ts"
import type { BrokerError, GroupRemoved } from "./error.ts"
import type { Selector, Start } from "./selector.ts"
import type { Commit, Committed } from "./transaction.ts"

/**
 * Gives a delivery back: at once (`delayMillis` 0) or after a delay, as the given attempt. Only the same group sees it.
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
 * What a member found when it looked for expired leases.
 *
 * @category models
 * @since 0.1.0
 */
export interface Claimed {
  readonly deliveries: ReadonlyArray<Delivery>
  /**
   * How long no further lease can expire: the next look is due then. At least 1, at most the lease. `undefined`: nobody else holds
   * anything, and `awaitLease` tells when somebody does.
   */
  readonly nextInMillis: number | undefined
  /** Deliveries of lost members whose message had been removed by a limit: they are lost for this group. */
  readonly vanished: number
  /** What the living members of the group are set to, as far as it is known; each once. */
  readonly settings: ReadonlyArray<GroupSettings>
}

/**
 * The key by which a delivery is done once: two deliveries of one group and channel with the same key are one piece of work.
 *
 * @category models
 * @since 0.1.0
 */
export interface Keyed {
  readonly delivery: Delivery
  readonly key: string
}

/**
 * What a member found when it wanted to begin a delivery by its key: `mine`: nobody did it and nobody is at it, this member is
 * now; `done`: it was done before; `busy`: another delivery with this key is being handled.
 *
 * @category models
 * @since 0.1.0
 */
export type Begun = "mine" | "done" | "busy"

/**
 * What the members of a group should have in common.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupSettings {
  /** How long a delivery belongs to a member without being renewed. Where members differ, deliveries are taken over after the longest. */
  readonly leaseMillis: number
  /** How long it counts that a key was done; only members that `begin` their deliveries need it. At least the lease. */
  readonly doneMillis?: number | undefined
  /** After how many crashes a message is given up. The backend only tells it to the others. */
  readonly maxCrashes?: number | undefined
}

/**
 * Who joins which group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Membership extends GroupSettings {
  readonly shard: number
  readonly group: string
  /** Unique among the members that are alive: two members of one name take each other's deliveries. */
  readonly consumer: string
  readonly selector: Selector
  readonly start: Start
}

/**
 * One consumer of one group in one shard. All settlements are fenced: what they return are the deliveries this member no
 * longer holds (their lease expired and another member has them); nothing was done for these.
 *
 * @category models
 * @since 0.1.0
 */
export interface Member {
  /**
   * Waits until there are messages, at most `blockMillis`, and leases them to this member: at most `count`, of all channels together.
   * Empty after the wait or a `wake`. Redeliveries come before new messages, and no channel keeps another one waiting for ever. After
   * a lost connection it also returns what had been handed out to this member in a reply that never arrived.
   * One call of `read` or `awaitReady` at a time.
   */
  readonly read: (
    count: number,
    blockMillis: number
  ) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError | GroupRemoved>
  /**
   * Waits until there may be messages to read, at most `blockMillis`, and takes none: whoever has no room to keep for a waiting `read` asks
   * for some when this says that it is worth it. False after the wait or a `wake`.
   */
  readonly awaitReady: (blockMillis: number) => Effect.Effect<boolean, BrokerError | GroupRemoved>
  /** Makes a waiting `read` or `awaitReady` return now, with what it has. */
  readonly wake: Effect.Effect<void>
  /** Which of these channels another member of the group reads, too, that was heard of lately. */
  readonly shared: (channels: ReadonlySet<string>) => Effect.Effect<ReadonlySet<string>, BrokerError>
  readonly ack: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Acknowledges what is not to be handled: unlike `ack` it frees a key, which is not done. */
  readonly drop: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly redeliver: (items: ReadonlyArray<Redelivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly bury: (items: ReadonlyArray<Burial>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Starts the lease of these deliveries anew. */
  readonly renew: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /**
   * Begins deliveries by key, in order. What is `mine` stays so while its lease is renewed: `ack` and `commit` then remember the
   * key as done in the same step, and refuse when another delivery has taken the key over; `drop`, `redeliver` and `bury` free it.
   */
  readonly begin: (items: ReadonlyArray<Keyed>) => Effect.Effect<ReadonlyArray<Begun>, BrokerError>
  /** Applies each commit wholly or not at all: its messages, its writes, its acknowledgement, its key. */
  readonly commit: (commits: ReadonlyArray<Commit>) => Effect.Effect<ReadonlyArray<Committed>, BrokerError>
  /**
   * Notes that the handlers of these suspects begin, and starts their leases anew: when this member is lost before they are settled, that
   * counts as a crash of each. A settlement takes the note with it.
   */
  readonly tryAgain: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Takes back what `tryAgain` has noted: should this member be lost, it was none of these. */
  readonly acquit: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<void, BrokerError>
  /** Takes over at most `count` deliveries of this group whose lease has expired, by the longest lease of its living members; with 0 it only looks. */
  readonly claim: (count: number) => Effect.Effect<Claimed, BrokerError | GroupRemoved>
  /** Completes when another member has joined the group since `shared` was asked last; never where this has to be looked for (`Broker.isPolled`). */
  readonly awaitJoin: Effect.Effect<void>
  /** Fails when the group is known to be removed: as soon as that is told, where backends tell it, or with the next `read` or `claim`. */
  readonly awaitRemoval: Effect.Effect<never, GroupRemoved>
  /** Completes when another member holds something that this one would have to take over one day. */
  readonly awaitLease: Effect.Effect<void>
}
