/** A consumer group: its place on each channel, the leases it has handed out, the messages that are ready again, and the members that wait. */
import type { Latch } from "effect"
import { MutableList } from "effect"
import type { Delivery, GroupSettings } from "../Broker.ts"
import type { PastFailure } from "../broker/deadLetters.ts"
import type { Position } from "../broker/position.ts"
import { format, isAfter } from "../broker/position.ts"
import type { Totals } from "../broker/statistics.ts"
import { Inspect, publicPart } from "../internal/inspected.ts"
import type { Log, Stored } from "./log.ts"
import { Marks } from "./onceKeys.ts"

/** At most this many keys of a group are remembered. */
const mostMarks = 1_000_000

/** A message that was handed out before, and will be handed out again. */
export interface Redelivery {
  readonly cursor: GroupCursor
  readonly stored: Stored
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  /** The message was taken over from a lost consumer, and no handler of it has ended since. */
  readonly isSuspect?: boolean | undefined
  /** The earlier failures of a message that was requeued from the dead letters. */
  readonly history: ReadonlyArray<PastFailure>
  /** When the message became ready again. */
  readonly readyAtMillis?: number | undefined
}

const noHistory: ReadonlyArray<PastFailure> = []

/**
 * A message that is handed out. The object itself is the token: another hand-out of the message is another object.
 *
 * The fields that lead into the broker are private: printing or comparing a delivery must not walk through all of it.
 */
export class Lease implements Delivery {
  readonly id: string
  readonly channel: string
  readonly origin: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly orderingKey: string | undefined
  readonly publishedAtMillis: number
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  readonly isSuspect: boolean
  readonly malformed = undefined
  readonly history: ReadonlyArray<PastFailure>
  readonly expiresInMillis: number | undefined
  readonly #cursor: GroupCursor
  readonly #stored: Stored
  readonly #number: number | undefined
  #owner: object
  /** The lease expires this long after it was handed out or renewed. */
  readonly leaseMillis: number
  /** How often the message was taken over from a lost consumer since it became ready. */
  readonly #takeovers: number
  #sinceMillis: number
  readonly #readyAtMillis: number
  /** The exactly-once key that the delivery holds. */
  mark: string | undefined
  /** The key was done before. */
  isDuplicate = false
  /** The owner has begun to handle the message as a suspect. */
  isTried = false

  constructor(
    { attempt, crashes, deliveryCount, history, isSuspect, cursor, readyAtMillis, stored }: Redelivery,
    number: number | undefined,
    owner: Owner,
    nowMillis: number,
    takeovers = 0
  ) {
    this.id = stored.id
    this.channel = cursor.channel
    this.origin = format(stored.position)
    this.payload = stored.payload
    this.headers = stored.headers
    this.params = stored.params
    this.orderingKey = stored.orderingKey
    this.publishedAtMillis = stored.position.millis
    this.attempt = attempt
    this.deliveryCount = deliveryCount + 1
    this.crashes = crashes
    this.isSuspect = isSuspect === true || crashes > 0
    this.history = history
    this.expiresInMillis = stored.expiresAtMillis === undefined ? undefined : stored.expiresAtMillis - nowMillis
    this.#cursor = cursor
    this.#readyAtMillis = readyAtMillis ?? stored.position.millis
    this.#stored = stored
    this.#number = number
    this.#owner = owner
    this.leaseMillis = owner.settings.leaseMillis
    this.#takeovers = takeovers
    this.#sinceMillis = nowMillis
  }

  [Inspect]() {
    return publicPart(this)
  }

  get cursor(): GroupCursor {
    return this.#cursor
  }

  /** The number of the message in the log; a redelivery has none. */
  get number(): number | undefined {
    return this.#number
  }

  get takeovers(): number {
    return this.#takeovers
  }

  /** When the message was stored, or became ready again. */
  get readyAtMillis(): number {
    return this.#readyAtMillis
  }

  get owner(): object {
    return this.#owner
  }

  /** When the lease was handed out or renewed. */
  get sinceMillis(): number {
    return this.#sinceMillis
  }

  isHeldBy(owner: object): boolean {
    return this.#owner === owner && this.#cursor.leases.has(this)
  }

  /** Takes the lease from its owner; another member claims it once it has expired. */
  abandon(): void {
    this.#owner = {}
  }

  renew(nowMillis: number): void {
    this.#sinceMillis = nowMillis
  }

  /** Returns the message for another hand-out. */
  again(attempt: number): Redelivery {
    const { crashes, deliveryCount, history } = this
    // A message whose handler has ended is no suspect any more.
    const isSuspect = this.isSuspect && attempt === this.attempt
    return { cursor: this.#cursor, stored: this.#stored, attempt, deliveryCount, crashes, isSuspect, history }
  }

  /** The removal of the message by a limit was reported already. */
  isTold = false

  /** Whether a limit has removed the message from the log. */
  get isVanished(): boolean {
    return this.#number !== undefined && this.#number < this.#cursor.log.first
  }
}

/** The place of a group on one channel. */
export class GroupCursor {
  readonly group: Group
  readonly channel: string
  readonly log: Log
  /** The number of the next message to hand out. */
  private next: number
  /** How many messages were stored before the group began. */
  started: number
  readonly totals: { -readonly [Total in keyof Totals]: number } = {
    acked: 0,
    duplicates: 0,
    failed: 0,
    retried: 0,
    dead: 0,
    crashed: 0
  }
  /** Dead letters that were deleted. */
  removed = 0
  /** Messages that wait for a retry. */
  due = 0
  /** Messages up to this position are not for this group. The position may lie in the future. */
  private begin: Position | undefined
  private readonly ready = MutableList.make<Redelivery>()
  /** Messages handed out and not settled, in the order of the hand-outs. */
  readonly leases = new Set<Lease>()

  constructor(group: Group, channel: string, log: Log, begin: Position) {
    this.group = group
    this.channel = channel
    this.log = log
    this.next = log.after(begin)
    this.started = this.next
    this.begin = begin
  }

  get readyCount(): number {
    return this.ready.length
  }

  get unreadCount(): number {
    return this.log.end - Math.max(this.next, this.log.first)
  }

  /** The lowest number that this group has not acknowledged. */
  get needs(): number {
    let lowest = this.next
    for (const { number } of this.leases) if (number !== undefined && number < lowest) lowest = number
    return lowest
  }

  /** When the oldest unsettled message was stored, or became ready again. */
  get oldestAtMillis(): number | undefined {
    let oldest = this.unreadCount > 0 ? this.log.at(Math.max(this.next, this.log.first)).position.millis : Infinity
    for (const { readyAtMillis } of this.leases) oldest = Math.min(oldest, readyAtMillis)
    const first = this.ready.length > 0 ? this.ready.head?.array[this.ready.head.offset]?.readyAtMillis : undefined
    oldest = Math.min(oldest, first ?? Infinity)
    return oldest === Infinity ? undefined : oldest
  }

  /** Takes note of a stored message. */
  stored({ position }: Stored): void {
    if (this.begin !== undefined && !isAfter(position, this.begin)) {
      this.next = this.log.end
      this.started = this.next
      return
    }
    this.begin = undefined
    this.group.announce(this)
  }

  /** Makes a message ready again. */
  giveBack(redelivery: Redelivery, nowMillis: number): void {
    MutableList.append(this.ready, { ...redelivery, readyAtMillis: nowMillis })
    this.group.announce(this)
  }

  /** Hands out at most `count` redeliveries. */
  takeReady(count: number, owner: Owner, nowMillis: number, out: Array<Lease>): void {
    for (let left = Math.min(count, this.ready.length); left > 0; left--) {
      this.hold(new Lease(MutableList.take(this.ready) as Redelivery, undefined, owner, nowMillis), out)
    }
    this.group.tidy(this)
  }

  /** Hands out at most `count` messages that the group has not read. */
  takeUnread(count: number, owner: Owner, nowMillis: number, out: Array<Lease>): void {
    this.next = Math.max(this.next, this.log.first)
    for (let left = Math.min(count, this.unreadCount); left > 0; left--) {
      const number = this.next++
      const stored = this.log.at(number)
      this.hold(
        new Lease(
          { cursor: this, stored, attempt: 1, deliveryCount: 0, crashes: 0, history: noHistory },
          number,
          owner,
          nowMillis
        ),
        out
      )
    }
    this.group.tidy(this)
  }

  /** Hands out to `owner` a message whose lease has expired. */
  takeOver(lease: Lease, owner: Owner, nowMillis: number, out: Array<Lease>): void {
    this.leases.delete(lease)
    this.hold(
      new Lease(
        {
          ...lease.again(lease.attempt),
          crashes: lease.crashes + (lease.isTried ? 1 : 0),
          isSuspect: true,
          readyAtMillis: lease.readyAtMillis
        },
        lease.number,
        owner,
        nowMillis,
        lease.takeovers + 1
      ),
      out
    )
  }

  private hold(lease: Lease, out: Array<Lease>): void {
    this.leases.add(lease)
    out.push(lease)
    this.group.announceLease(this, lease.owner)
  }
}

/** A member, as the owner of leases. */
export interface Owner {
  readonly consumer: string
  readonly settings: GroupSettings
  readonly reads: (channel: string) => boolean
  /** When it last asked for messages, renewed or claimed any. */
  heardAtMillis: number
}

/** A member that waits until another member holds a message. */
export interface Guard {
  readonly owner: Owner
  readonly wake: () => void
}

/** A member that waits for messages. */
export interface Waiter {
  readonly reads: (channel: string) => boolean
  readonly latch: Latch.Latch
}

export class Group {
  readonly name: string
  /** The registered patterns: a message they match is not removed before the group has acknowledged it. */
  readonly registered = new Map<string, (channel: string) => boolean>()
  readonly cursors = new Map<string, GroupCursor>()
  /** The cursors with a message to hand out. */
  readonly active = new Set<GroupCursor>()
  /** In the order in which they began to wait, which is the order in which they are served. */
  readonly waiters = new Set<Waiter>()
  readonly members = new Set<Owner>()
  /** Called when `removeGroup` has taken a channel from the group. */
  readonly removing = new Set<() => void>()
  /** How many members have ever joined the group. */
  joins = 0
  /** Called when another member joins. */
  readonly joining = new Set<() => void>()
  readonly guards = new Set<Guard>()
  /** The exactly-once keys of the group that are done or in progress. */
  readonly marks = new Marks(mostMarks)

  /** Waits that have ended: each is resumed after the operation. */
  private readonly resumed: Array<() => void>

  constructor(name: string, resumed: Array<() => void>) {
    this.name = name
    this.resumed = resumed
  }

  reads(channel: string): boolean {
    for (const matches of this.registered.values()) if (matches(channel)) return true
    return false
  }

  /** Wakes the members that wait for messages of this channel. */
  announce(cursor: GroupCursor): void {
    this.active.add(cursor)
    this.wake((waiter) => waiter.reads(cursor.channel))
  }

  /** Wakes the members that wait until another one holds a message of this channel. */
  announceLease(cursor: GroupCursor, owner: object): void {
    for (const guard of this.guards) {
      if (guard.owner === owner || !guard.owner.reads(cursor.channel)) continue
      this.guards.delete(guard)
      this.resumed.push(guard.wake)
    }
  }

  /** Ends the waits for which `holds` is true. */
  wake(holds: (waiter: Waiter) => boolean): void {
    for (const waiter of this.waiters) {
      if (!holds(waiter)) continue
      this.waiters.delete(waiter)
      this.resumed.push(() => waiter.latch.openUnsafe())
    }
  }

  tidy(cursor: GroupCursor): void {
    if (cursor.readyCount === 0 && cursor.unreadCount === 0) this.active.delete(cursor)
  }

  /** Forgets a channel and its leases. */
  leave(channel: string): void {
    const cursor = this.cursors.get(channel)
    if (cursor === undefined) return
    cursor.leases.clear()
    this.cursors.delete(channel)
    this.active.delete(cursor)
  }
}
