/**
 * A consumer group: how far it is on each channel, what it has handed out, what is ready again, and who waits for messages.
 */
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

/** So many keys of a group are remembered. */
const mostMarks = 1_000_000

/** A message that was handed out before and comes again. */
export interface Redelivery {
  readonly reading: Reading
  readonly stored: Stored
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  /** It was taken over from a lost consumer, and its handler has not ended since. */
  readonly isSuspect?: boolean | undefined
  /** Of a message that was requeued from the dead letters. */
  readonly history: ReadonlyArray<PastFailure>
  /** When it became ready again. */
  readonly readyAtMillis?: number | undefined
}

const noHistory: ReadonlyArray<PastFailure> = []

/**
 * A hand-out. The object itself is the token of the lease: another hand-out of the same message is another one. What leads into
 * the broker is private: whoever prints or compares a delivery must not walk through all of it.
 */
export class Lease implements Delivery {
  readonly id: string
  readonly channel: string
  readonly origin: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly publishedAtMillis: number
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  readonly isSuspect: boolean
  readonly malformed = undefined
  readonly history: ReadonlyArray<PastFailure>
  readonly expiresInMillis: number | undefined
  readonly #reading: Reading
  readonly #stored: Stored
  readonly #number: number | undefined
  #owner: object
  /** How long its owner may leave it without renewal. */
  readonly leaseMillis: number
  /** How often it was taken over from a lost consumer since it became ready. */
  readonly #takeovers: number
  #sinceMillis: number
  readonly #readyAtMillis: number
  /** The key it has begun by. */
  mark: string | undefined
  /** Its key was done before. */
  isDuplicate = false
  /** Its owner has begun it as a suspect. */
  isTried = false

  constructor(
    { attempt, crashes, deliveryCount, history, isSuspect, reading, readyAtMillis, stored }: Redelivery,
    number: number | undefined,
    owner: Owner,
    nowMillis: number,
    takeovers = 0
  ) {
    this.id = stored.id
    this.channel = reading.channel
    this.origin = format(stored.position)
    this.payload = stored.payload
    this.headers = stored.headers
    this.params = stored.params
    this.publishedAtMillis = stored.position.millis
    this.attempt = attempt
    this.deliveryCount = deliveryCount + 1
    this.crashes = crashes
    this.isSuspect = isSuspect === true || crashes > 0
    this.history = history
    this.expiresInMillis = stored.expiresAtMillis === undefined ? undefined : stored.expiresAtMillis - nowMillis
    this.#reading = reading
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

  get reading(): Reading {
    return this.#reading
  }

  /** The number of the message in the log; a redelivery has left the log behind. */
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

  /** When it was handed out or renewed. */
  get sinceMillis(): number {
    return this.#sinceMillis
  }

  isHeldBy(owner: object): boolean {
    return this.#owner === owner && this.#reading.leases.has(this)
  }

  /** Nobody holds it any more; whoever looks for expired leases finds it when its time has come. */
  abandon(): void {
    this.#owner = {}
  }

  renew(nowMillis: number): void {
    this.#sinceMillis = nowMillis
  }

  /** The message once more. */
  again(attempt: number): Redelivery {
    const { crashes, deliveryCount, history } = this
    // One whose handler has come to an end is no suspect any more.
    const isSuspect = this.isSuspect && attempt === this.attempt
    return { reading: this.#reading, stored: this.#stored, attempt, deliveryCount, crashes, isSuspect, history }
  }

  /** It was told already that a limit has removed the message. */
  isTold = false

  /** Whether a limit has removed the message from the log. */
  get isVanished(): boolean {
    return this.#number !== undefined && this.#number < this.#reading.log.first
  }
}

/** A group on one channel. */
export class Reading {
  readonly group: Group
  readonly channel: string
  readonly log: Log
  /** The number of the next message to hand out. */
  private next: number
  /** How many messages were stored before its beginning. */
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
  /** Messages up to this position are not for this group; it may lie ahead. */
  private begin: Position | undefined
  private readonly ready = MutableList.make<Redelivery>()
  /** Handed out and not settled; in the order of the hand-outs. */
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

  /** When the oldest message that is not settled was stored, or became ready again. */
  get oldestAtMillis(): number | undefined {
    let oldest = this.unreadCount > 0 ? this.log.at(Math.max(this.next, this.log.first)).position.millis : Infinity
    for (const { readyAtMillis } of this.leases) oldest = Math.min(oldest, readyAtMillis)
    const first = this.ready.length > 0 ? this.ready.head?.array[this.ready.head.offset]?.readyAtMillis : undefined
    oldest = Math.min(oldest, first ?? Infinity)
    return oldest === Infinity ? undefined : oldest
  }

  /** Told of every message stored. */
  stored({ position }: Stored): void {
    if (this.begin !== undefined && !isAfter(position, this.begin)) {
      this.next = this.log.end
      this.started = this.next
      return
    }
    this.begin = undefined
    this.group.announce(this)
  }

  /** Makes a message ready that was handed out before. */
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
          { reading: this, stored, attempt: 1, deliveryCount: 0, crashes: 0, history: noHistory },
          number,
          owner,
          nowMillis
        ),
        out
      )
    }
    this.group.tidy(this)
  }

  /** Hands out to `owner` what somebody else's lease has expired on. */
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

/** A member that waits for another one to hold something. */
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
  /** The patterns it is registered for: nothing they match is removed before it has acknowledged it. */
  readonly registered = new Map<string, (channel: string) => boolean>()
  readonly readings = new Map<string, Reading>()
  /** Those with something to hand out. */
  readonly active = new Set<Reading>()
  /** In the order they began to wait: the first one to wait is the first one served. */
  readonly waiters = new Set<Waiter>()
  readonly members = new Set<Owner>()
  /** Told when something was taken from the group by `removeGroup`. */
  readonly removing = new Set<() => void>()
  /** How many members have ever joined it. */
  joins = 0
  /** Who waits for another member. */
  readonly joining = new Set<() => void>()
  readonly guards = new Set<Guard>()
  /** The keys of its channels that are done, or being handled. */
  readonly marks = new Marks(mostMarks)

  /** Whose wait has ended; they are resumed after the operation. */
  private readonly woken: Array<() => void>

  constructor(name: string, woken: Array<() => void>) {
    this.name = name
    this.woken = woken
  }

  reads(channel: string): boolean {
    for (const matches of this.registered.values()) if (matches(channel)) return true
    return false
  }

  /** There is something to hand out on this channel. */
  announce(reading: Reading): void {
    this.active.add(reading)
    this.wake((waiter) => waiter.reads(reading.channel))
  }

  /** A member holds something on this channel. */
  announceLease(reading: Reading, owner: object): void {
    for (const guard of this.guards) {
      if (guard.owner === owner || !guard.owner.reads(reading.channel)) continue
      this.guards.delete(guard)
      this.woken.push(guard.wake)
    }
  }

  /** Ends the waits for which `holds` is true. */
  wake(holds: (waiter: Waiter) => boolean): void {
    for (const waiter of this.waiters) {
      if (!holds(waiter)) continue
      this.waiters.delete(waiter)
      this.woken.push(() => waiter.latch.openUnsafe())
    }
  }

  tidy(reading: Reading): void {
    if (reading.readyCount === 0 && reading.unreadCount === 0) this.active.delete(reading)
  }

  /** Forgets a channel, with what was handed out. */
  leave(channel: string): void {
    const reading = this.readings.get(channel)
    if (reading === undefined) return
    reading.leases.clear()
    this.readings.delete(channel)
    this.active.delete(reading)
  }
}
