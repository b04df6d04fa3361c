/** Deliveries in the hands of a consumer, and how they end. */
import type { Fiber, Latch } from "effect"
import { Scope } from "effect"
import type { Commit, CommitRefused, Delivery, Member } from "../Broker.ts"
import { Activity } from "../internal/activity.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { release } from "../internal/settlement.ts"

/** What became of a settlement: `lost` when another member had the delivery by then. */
export type Settled = "done" | "lost"

type Phase = "waiting" | "running" | "open" | "settling" | "gone"

/** A delivery in the hands of this process, and the attempt to handle it. */
export class HeldDelivery extends Activity {
  readonly delivery: Delivery
  readonly shard: ShardConsumer
  phase: Phase = "waiting"
  /** Until when it may be handled, on this process's monotonic clock. */
  expiresAtMillis = Infinity
  /** Until when nobody else can have it, in nanoseconds of the monotonic clock. */
  leasedUntil: bigint
  /** When it came, in nanoseconds of the monotonic clock. */
  readonly heldSince: bigint
  /** When its handler was started, in nanoseconds of the monotonic clock; exactly, where it is timed. */
  startedAt: bigint | undefined
  isTimed = false
  /** It was told that a limit has removed its message. */
  isVanished = false
  /** It was told that its handler runs for too long. */
  isSlow = false
  fiber: Fiber.Fiber<HandlerOutcome> | undefined
  outcome: Settled | undefined
  waiters: Array<(outcome: Settled) => void> | undefined
  /** What was made of it to find its key, for the handler. */
  prepared: unknown
  /** Its acknowledgement is part of a transaction, and not the handler's to send. */
  isTransactional = false
  /** Ends with the attempt. Nothing is in it until somebody puts something there. */
  readonly scope: Scope.Closeable = Scope.makeUnsafe()

  constructor(delivery: Delivery, shard: ShardConsumer, leasedUntil: bigint, heldSince: bigint) {
    super()
    this.delivery = delivery
    this.shard = shard
    this.leasedUntil = leasedUntil
    this.heldSince = heldSince
  }
}

/** Settles a delivery with the next batch of its shard. */
export const enqueue = (held: HeldDelivery, settlement: Settlement): void => {
  held.phase = "settling"
  held.shard.outbox.push({ held, settlement })
  held.shard.settlements.openUnsafe()
}

/** Gives a delivery back untouched: at once, to any consumer of the group. */
export const giveBack = (held: HeldDelivery): void => enqueue(held, release(held.delivery))

export interface ShardConsumer {
  readonly member: Member
  /** How long a lease takes. */
  readonly leaseNanos: bigint
  readonly held: Set<HeldDelivery>
  readonly settlements: Latch.Latch
  readonly heartbeat: Heartbeat
  isRenewalDue: boolean
  /** Open when something waits for a renewal. */
  readonly overdue: Latch.Latch
  /** Closed while it holds nothing and waits for something to hold. */
  readonly occupied: Latch.Latch
  /** When it came round last, and the time before, in nanoseconds of the monotonic clock: between them this process was awake. */
  roundAt: bigint
  awakeAt: bigint
  outbox: Array<Pending>
  commits: Array<Committing>
}

export interface Pending {
  readonly held: HeldDelivery
  readonly settlement: Settlement
}

export interface Committing {
  readonly held: HeldDelivery
  readonly commit: Commit
  readonly resume: (outcome: Settled | CommitRefused) => void
}

/** Counts since the consumer started, of this process. */
export interface Counts {
  /** Deliveries acknowledged. */
  processed: number
  /** Deliveries acknowledged without being handled, because their key was done before. */
  duplicates: number
  /** Attempts that failed. */
  failed: number
  /** Attempts that failed and will be repeated. */
  retried: number
  /** Deliveries that became dead letters. */
  dead: number
  /** Deliveries whose time to live had ended; they are dead letters, or dropped. */
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
