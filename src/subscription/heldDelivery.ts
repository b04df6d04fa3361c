/** Held deliveries: the deliveries that this process has, and the consumer of a shard that has them. */
import type { Fiber } from "effect"
import { Latch, Scope } from "effect"
import type { Commit, CommitRefused, Delivery, Member, Pause } from "../Broker.ts"
import { Activity } from "../internal/activity.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { release } from "../internal/settlement.ts"

/** The outcome of a settlement: `lost` if another member had the delivery by then. */
export type Settled = "done" | "lost"

type Phase = "waiting" | "running" | "open" | "settling" | "gone"

/** A delivery that this process holds, and the attempt to handle it. */
export class HeldDelivery extends Activity {
  readonly delivery: Delivery
  readonly shard: ShardConsumer
  phase: Phase = "waiting"
  /** The end of its time to live, on this process's monotonic clock. */
  expiresAtMillis = Infinity
  /** The end of its lease, in nanoseconds of the monotonic clock: before it no other consumer can have the delivery. */
  leasedUntil: bigint
  /** The time of its arrival, in nanoseconds of the monotonic clock. */
  readonly heldSince: bigint
  /** The start of its handler, in nanoseconds of the monotonic clock. It is exact if the handler is timed. */
  startedAt: bigint | undefined
  isTimed = false
  /** It was logged that a limit has removed its message. */
  isVanished = false
  /** It was reported that its handler is slow. */
  isSlow = false
  fiber: Fiber.Fiber<HandlerOutcome> | undefined
  /** The batch that it is handled in. */
  batch: HeldBatch | undefined
  outcome: Settled | undefined
  waiters: Array<(outcome: Settled) => void> | undefined
  /** The message that was decoded to find its key, for the handler. */
  prepared: unknown
  /** Its acknowledgement is part of a transaction: the handler must not send it. */
  isTransactional = false
  /** The scope of the attempt. */
  readonly scope: Scope.Closeable = Scope.makeUnsafe()

  constructor(delivery: Delivery, shard: ShardConsumer, leasedUntil: bigint, heldSince: bigint) {
    super()
    this.delivery = delivery
    this.shard = shard
    this.leasedUntil = leasedUntil
    this.heldSince = heldSince
  }
}

/** Deliveries that one handler handles together, and their attempt. */
export class HeldBatch extends Activity {
  readonly deliveries: ReadonlyArray<HeldDelivery>
  /** It is settled as a whole: without one of its deliveries the others cannot be settled either. */
  readonly isWhole: boolean
  fiber: Fiber.Fiber<unknown> | undefined
  /** The scope of the attempt. */
  readonly scope: Scope.Closeable = Scope.makeUnsafe()

  constructor(deliveries: ReadonlyArray<HeldDelivery>, isWhole: boolean) {
    super()
    this.deliveries = deliveries
    this.isWhole = isWhole
  }
}

/** The activity of a handler: the delivery that it handles, or the batch. */
export type Handled = HeldDelivery | HeldBatch

export const handledWith = (held: HeldDelivery): Handled => held.batch ?? held

/** Interrupts the handler of a delivery that has left this process, unless it handles others that have not. */
export const abandon = (held: HeldDelivery): void => {
  const { batch } = held
  if (batch === undefined) held.fiber?.interruptUnsafe()
  else if (batch.isWhole || batch.deliveries.every(({ phase }) => phase === "gone")) batch.fiber?.interruptUnsafe()
}

/** Settles a delivery with the next batch of its shard. */
export const enqueue = (held: HeldDelivery, settlement: Settlement): void => {
  held.phase = "settling"
  held.shard.outbox.push({ held, settlement })
  held.shard.settlements.openUnsafe()
}

/** Gives a delivery back untouched: at once, to any consumer of the group. */
export const giveBack = (held: HeldDelivery): void => enqueue(held, release(held.delivery))

/** Whether the group is paused on the channel of a delivery. */
export const isPausedOn = ({ delivery, shard }: HeldDelivery): boolean => shard.resting?.(delivery.channel) === true

/** The consumer of one shard: its member of the group, and the deliveries that it holds. */
export class ShardConsumer {
  readonly member: Member
  /** How long a lease takes. */
  readonly leaseNanos: bigint
  readonly held = new Set<HeldDelivery>()
  readonly settlements = Latch.makeUnsafe(false)
  readonly heartbeat: Heartbeat
  isRenewalDue = false
  /** Open while deliveries wait for a renewal. */
  readonly overdue = Latch.makeUnsafe(false)
  /** Closed while it holds nothing, and its renewal waits. */
  readonly occupied = Latch.makeUnsafe(true)
  /** The times of the last round of renewal and of the one before, in nanoseconds of the monotonic clock: this process was awake between them. */
  roundAt: bigint
  awakeAt: bigint
  outbox: Array<Pending> = []
  commits: Array<Committing> = []
  /** The pauses of the group in this shard, and which channels they cover (`undefined`: none). */
  pauses: ReadonlyArray<Pause> = []
  resting: ((channel: string) => boolean) | undefined

  constructor(member: Member, leaseMillis: number, heartbeat: Heartbeat, joinedAt: bigint) {
    this.member = member
    this.leaseNanos = BigInt(Math.ceil(leaseMillis)) * 1_000_000n
    this.heartbeat = heartbeat
    this.roundAt = this.awakeAt = joinedAt
  }
}

export interface Pending {
  readonly held: HeldDelivery
  readonly settlement: Settlement
}

export interface Committing {
  readonly held: ReadonlyArray<HeldDelivery>
  readonly commit: Commit
  readonly resume: (outcome: Settled | CommitRefused) => void
}

/** Counts of this process since the consumer started. */
export interface Counts {
  /** Deliveries acknowledged. */
  processed: number
  /** Deliveries acknowledged without being handled, because their key was done. */
  duplicates: number
  /** Attempts that failed. */
  failed: number
  /** Attempts that failed and will be repeated. */
  retried: number
  /** Deliveries that became dead letters. */
  dead: number
  /** Deliveries whose time to live had ended: they became dead letters, or were dropped. */
  expired: number
  /** Deliveries taken over because another consumer's lease had expired. */
  crashed: number
  /** Deliveries this consumer lost because its lease expired. */
  lostLeases: number
  /** Deliveries whose message was removed by a limit before it was settled: lost with their consumer, or settled all the same. */
  vanished: number
  /** When the last delivery was acknowledged that was handled, by this process's clock; `undefined` before the first. */
  lastMessageAtMillis: number | undefined
  /** When the last delivery was settled, by this process's clock; `undefined` before the first. */
  lastSettledAtMillis: number | undefined
}
