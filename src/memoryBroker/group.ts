/** A consumer group: its place on each channel, the leases it has handed out, the messages that are ready again, and the members that wait. */
import type { Latch } from "effect"
import { MutableList } from "effect"
import type { Delivery, GroupSettings, Ordering, Pause } from "../Broker.ts"
import type { PastFailure } from "../broker/deadLetters.ts"
import type { Position } from "../broker/position.ts"
import { format, isAfter } from "../broker/position.ts"
import type { Totals } from "../broker/statistics.ts"
import { Inspect, publicPart } from "../internal/inspected.ts"
import { Lines } from "./lines.ts"
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
  /** The message is the head of its ordering key. */
  readonly isHead?: boolean | undefined
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
  readonly #isHead: boolean
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
    { attempt, crashes, deliveryCount, history, isHead, isSuspect, cursor, readyAtMillis, stored }: Redelivery,
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
    this.#isHead = isHead === true
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

  /** The message is the head of its ordering key: the key is closed until it is settled. */
  get isHead(): boolean {
    return this.#isHead
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
    const { crashes, deliveryCount, history, isHead } = this
    // A message whose handler has ended is no suspect any more.
    const isSuspect = this.isSuspect && attempt === this.attempt
    return { cursor: this.#cursor, stored: this.#stored, attempt, deliveryCount, crashes, isSuspect, history, isHead }
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
  /** The ordering keys, if the group orders. */
  private readonly lines = new Lines<Redelivery>()

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

  /** Handed out and not settled, or waiting behind such a message of the same ordering key. */
  get pendingCount(): number {
    return this.leases.size + this.lines.size
  }

  /** The lowest number that this group has not acknowledged. */
  get needs(): number {
    let lowest = Math.min(this.next, this.lines.lowest ?? Infinity)
    for (const { number } of this.leases) if (number !== undefined && number < lowest) lowest = number
    return lowest
  }

  /** When the oldest unsettled message was stored, or became ready again. */
  get oldestAtMillis(): number | undefined {
    let oldest = this.unreadCount > 0 ? this.log.at(Math.max(this.next, this.log.first)).position.millis : Infinity
    for (const { readyAtMillis } of this.leases) oldest = Math.min(oldest, readyAtMillis)
    const waiting = this.lines.oldest
    if (waiting !== undefined) oldest = Math.min(oldest, this.readyAtOf(waiting))
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

  /** Hands out at most `count` redeliveries, and returns how many. */
  takeReady(count: number, owner: Owner, nowMillis: number, out: Array<Lease>): number {
    let taken = 0
    while (taken < count && this.ready.length > 0) {
      const redelivery = MutableList.take(this.ready) as Redelivery
      if (redelivery.isHead === true || !this.isOrdered(redelivery.stored)) {
        this.hold(new Lease(redelivery, undefined, owner, nowMillis), out)
      } else if (this.lines.enter(redelivery.stored.orderingKey, redelivery)) {
        this.hold(new Lease({ ...redelivery, isHead: true }, undefined, owner, nowMillis), out)
      } else continue
      taken++
    }
    this.group.tidy(this)
    return taken
  }

  /** Hands out at most `count` messages that the group has not read, and returns how many. */
  takeUnread(count: number, owner: Owner, nowMillis: number, out: Array<Lease>): number {
    this.next = Math.max(this.next, this.log.first)
    let taken = 0
    while (taken < count && this.unreadCount > 0) {
      const number = this.next++
      const stored = this.log.at(number)
      const isHead = this.isOrdered(stored)
      if (isHead && !this.lines.enter(stored.orderingKey, number)) continue
      this.hold(new Lease(this.firstOf(stored, isHead), number, owner, nowMillis), out)
      taken++
    }
    this.group.tidy(this)
    return taken
  }

  /**
   * Ends the turn of a settled message at its ordering key. The next message of the key is handed out to `owner`; without an owner it becomes
   * ready.
   */
  handOn(lease: Lease, owner: Owner | undefined, nowMillis: number, out: Array<Lease>): void {
    if (!lease.isHead) return
    const next = this.lines.next(lease.orderingKey!, this.log.first)
    if (next === undefined) return
    const number = typeof next === "number" ? next : undefined
    const redelivery = typeof next === "number" ? this.firstOf(this.log.at(next), true) : { ...next, isHead: true }
    if (owner === undefined) this.giveBack(redelivery, nowMillis)
    else this.hold(new Lease(redelivery, number, owner, nowMillis), out)
  }

  /** Returns how many messages a limit removed while they waited, since the last call. */
  takeVanished(): number {
    return this.lines.takeVanished()
  }

  private isOrdered(stored: Stored): stored is Stored & { readonly orderingKey: string } {
    return stored.orderingKey !== undefined && this.group.ordering === "block"
  }

  private firstOf(stored: Stored, isHead: boolean): Redelivery {
    return { cursor: this, stored, attempt: 1, deliveryCount: 0, crashes: 0, history: noHistory, isHead }
  }

  private readyAtOf(arrival: number | Redelivery): number {
    if (typeof arrival !== "number") return arrival.readyAtMillis ?? arrival.stored.position.millis
    // A limit has removed it.
    return arrival < this.log.first ? Infinity : this.log.at(arrival).position.millis
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
  /** The channels or patterns it reads. */
  readonly patterns: ReadonlyArray<string>
  /** The pauses of the group that it keeps. */
  keeps: ReadonlyArray<Pause>
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
  /** How the group treats ordering keys: the first member that says it decides. */
  ordering: Ordering | undefined
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

  /** Ends all waits: what its members may take has changed. */
  wakeAll(): void {
    this.wake(() => true)
    for (const guard of this.guards) this.resumed.push(guard.wake)
    this.guards.clear()
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
