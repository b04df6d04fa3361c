/**
 * The port between Rotif and a backend: the state machine of a delivery, and nothing else.
 *
 * Everything above it (channels, schemas, retry policies, subscriptions) is the same on every backend; everything
 * below it (`RedisBroker`, `MemoryBroker`) knows nothing of schemas and policies. `test/suite/broker.ts` is its contract.
 *
 * ```text
 *            append                    read                     ack
 * publisher ───────▶ ready (in the log) ────▶ leased (a member) ───▶ done
 *                      ▲                        │  │   │
 *                      │ promote, when due      │  │   └─ bury ────▶ dead letter
 *                      └────────── waiting ◀────┘  └ lease expires: claim by another member
 *                                       requeue
 * ```
 *
 * @since 0.1.0
 */
import type { Effect, Scope } from "effect"
import { Context, Data } from "effect"
import type { BroadcastPort } from "./BroadcastPort.ts"
import type { InspectionStore } from "./InspectionStore.ts"
import type { LetterStore } from "./LetterStore.ts"
import type { RecurringStore } from "./RecurringStore.ts"
import type { Due, ScheduledStore } from "./ScheduledStore.ts"
import type { StatsStore } from "./StatsStore.ts"

/**
 * Why an operation of a broker failed.
 *
 * - `Unavailable`: the backend could not be reached in time; the operation did not take effect.
 * - `Uncertain`: the connection was lost after the request was sent; the operation may have taken effect.
 * - `Overloaded`: the backend is out of memory or refuses work for now; the operation did not take effect.
 * - `Refused`: the backend will never accept it as things stand (authentication, permissions, wrong data under a key,
 *   wrong version, a different number of shards); somebody has to change something.
 * - `Stopped`: the layer has ended; the operation was not begun.
 *
 * @category errors
 * @since 0.1.0
 */
export type BrokerErrorReason = "Unavailable" | "Uncertain" | "Overloaded" | "Refused" | "Stopped"

/**
 * The backend did not do what was asked. Every operation of the port except `append` may be repeated after it:
 * settlements are fenced, so that doing them twice changes nothing.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Data.TaggedError("BrokerError")<{
  readonly reason: BrokerErrorReason
  /** The operation of the port, such as `"ack"`. */
  readonly operation: string
  /** What was wrong, where, and what to do. */
  readonly message: string
}> {
  /** Whether the same call may succeed later without anybody changing anything. */
  get isRetryable(): boolean {
    return this.reason !== "Refused" && this.reason !== "Stopped"
  }
}

/**
 * A group was removed (`removeGroup`) while this consumer of it was alive. The consumer has ended and does not make the group again; what was
 * in its hands is forgotten with the group. A new subscription makes a new group.
 *
 * **Details**: a group that Redis has lost (a flush, a failover) is another thing: that is made again where it was.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupRemoved extends Data.TaggedError("GroupRemoved")<{
  readonly group: string
  /** The channels or patterns the consumer reads. */
  readonly patterns: ReadonlyArray<string>
}> {
  override get message() {
    return `group "${this.group}" on ${
      this.patterns.map((pattern) => `"${pattern}"`).join(", ")
    } was removed by somebody: this consumer of it has ended; subscribe again to make a new group`
  }
}

/**
 * Limits on what a channel keeps, beside the default rule (a message is removed when every group has acknowledged it).
 * A message removed by a limit is lost for the groups that had not handled it. Where publishers define different ones, nothing is removed
 * that one of them would keep.
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
 * A message on its way into the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewMessage {
  /** The message id; made once per publish call and kept by every repetition of it. */
  readonly id: string
  /** The name of the channel, or its template text (`users.:userId.notices`). */
  readonly channel: string
  /** The encoded payload. */
  readonly payload: string
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
  /** The limits that the publisher defines for the channel; `{}`: it defines that there are none; `undefined`: it knows nothing of them. */
  readonly limits?: Limits | undefined
  /** When given, a second message of this channel with the same key within so many milliseconds is a duplicate and is not stored. */
  readonly window?: Window | undefined
  /** When given, the message waits for this time before it enters the log; a time that has come is now. */
  readonly due?: Due | undefined
  /** A message of this id that still waits takes this payload and time, instead of making this one a duplicate. */
  readonly replace?: boolean | undefined
  /** How long the message may be handed out, counted from when it enters the log, or from when it is due. */
  readonly expiresInMillis?: number | undefined
  /** Where else it has to be before its publish is over. */
  readonly durability?: Durability | undefined
}

/**
 * What a message has to survive: how many replicas must have it, and whether it must be on disk there and on the master.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  readonly replicas: number
  readonly onDisk: boolean
  /** How long is waited for that, once the message is stored. */
  readonly timeoutMillis: number
}

/**
 * The durability that was asked for was not reached in time. The message is stored all the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shortfall {
  /** How many replicas had the message for sure. */
  readonly replicas: number
  /** What was in the way, where it is not just the time that ran out. */
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
 * What became of one appended message.
 *
 * - `Stored`: it is in the log, once, at `position`.
 * - `Scheduled`: it waits for its time, once.
 * - `Duplicate`: the message `id` was first (their deduplication window is open, or it waits under the same id); nothing was
 *   added. `position` is where that one is in the log, if it was stored there at once.
 * - `Failed`: it is not in the log.
 * - `Uncertain`: it may be in the log; appending a message with the same id again settles it. With `isLasting` it does not: nothing tells any
 *   more what became of it.
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
 * Which channels a group reads: named ones, or all that match a pattern, now and in future.
 *
 * @category models
 * @since 0.1.0
 */
export type Selector =
  | { readonly _tag: "Channels"; readonly names: ReadonlyArray<string> }
  | { readonly _tag: "Pattern"; readonly pattern: string }

/**
 * Where a group that does not exist yet begins on the channels that exist already. Channels created later are always
 * read from their beginning.
 *
 * - `Earliest`: with the oldest message kept. - `Latest`: with the next one published.
 * - `Position`: after this position. - `Time`: with the first one published at or after this time (epoch milliseconds).
 *
 * @category models
 * @since 0.1.0
 */
export type Start =
  | { readonly _tag: "Earliest" }
  | { readonly _tag: "Latest" }
  | { readonly _tag: "Position"; readonly position: string }
  | { readonly _tag: "Time"; readonly atMillis: number }

/**
 * One hand-out of one message to one member of a group. Its identity is the token of the lease: a settlement is accepted
 * only while the member still holds this very hand-out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery {
  readonly id: string
  readonly channel: string
  /** Where the message was stored first: in its channel it names this one stored message, in every delivery. An id may come again. */
  readonly origin: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  /** When the message was first published, by the backend's clock. */
  readonly publishedAtMillis: number
  /** The attempt the policy sees, from 1; crashes, releases and lost leases do not count. */
  readonly attempt: number
  /** How often the message was handed out to this group, from 1. */
  readonly deliveryCount: number
  /** How many consumers were lost after the handler had begun. It is known from the second hand-out on: the first one notes nothing. */
  readonly crashes: number
  /** It was taken over from a lost consumer, and its handler has not ended since: `tryAgain` before that begins. */
  readonly isSuspect: boolean
  /** How long it may still be handled, by the backend's clock at the hand-out; 0 or less: it has expired. */
  readonly expiresInMillis: number | undefined
  /** Whether a renewal has found that a limit removed the message meanwhile. Its member goes on with it, and settles it as any other. */
  readonly isVanished: boolean
  /** Set when the stored entry could not be read as a message; `payload` then holds what was found, as JSON. */
  readonly malformed: string | undefined
}

/**
 * Gives a delivery back: at once (`delayMillis` 0) or after a delay, as the given attempt. Only the same group sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Requeue {
  readonly delivery: Delivery
  readonly delayMillis: number
  /** The attempt number of the next hand-out: the same one for a release, one more for a retry. */
  readonly attempt: number
}

/**
 * Why a group gave a message up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  /**
   * `exhausted`: no retries left. `term`: the handler said never again. `decode`: not a valid payload. `crashed`: it took too many
   * consumers down. `expired`: its time to live ended before it was handled.
   */
  readonly reason: "exhausted" | "term" | "decode" | "crashed" | "expired"
  /** The `_tag` or name of the error, if there was one. */
  readonly errorTag?: string | undefined
  /** At most 1 KiB. */
  readonly message: string
  /** The pretty-printed cause, at most 4 KiB. */
  readonly cause?: string | undefined
  /** The handler died of it: a bug, no error it declares. */
  readonly isDefect?: boolean | undefined
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
  readonly requeue: (items: ReadonlyArray<Requeue>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  readonly bury: (items: ReadonlyArray<Burial>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /** Starts the lease of these deliveries anew. */
  readonly renew: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
  /**
   * Begins deliveries by key, in order. What is `mine` stays so while its lease is renewed: `ack` and `commit` then remember the
   * key as done in the same step, and refuse when another delivery has taken the key over; `drop`, `requeue` and `bury` free it.
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

/**
 * Counts of one group on one channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupInfo {
  readonly group: string
  readonly channel: string
  /** Not yet read by the group. `undefined` when the backend cannot tell (after a limit removed unread messages). */
  readonly lag: number | undefined
  /** Handed out and not settled. */
  readonly pending: number
  /** Ready again after a retry or release, not yet handed out. */
  readonly ready: number
}

/**
 * Counts of one channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChannelInfo {
  readonly channel: string
  /** Messages in the log. */
  readonly length: number
  readonly groups: ReadonlyArray<GroupInfo>
}

/**
 * Messages on their way and given up, over all shards.
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerInfo {
  readonly channels: ReadonlyArray<ChannelInfo>
  /** Waiting for a time. */
  readonly waiting: number
  readonly dead: number
}

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
