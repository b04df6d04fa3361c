/**
 * Everything a broker in memory knows. Each operation happens at once, at a time it is told: there is no state between two of
 * them, so a fiber that is interrupted leaves nothing half done.
 */
import { Effect } from "effect"
import type { Appended, BrokerInfo, Failure, Limits, NewMessage, Start } from "../Broker.ts"
import * as Definitions from "../broker/limits.ts"
import type { Position } from "../broker/position.ts"
import { format, parse } from "../broker/position.ts"
import type { ChannelStats } from "../broker/statistics.ts"
import { balance } from "../broker/statistics.ts"
import { reading } from "../internal/pattern.ts"
import { yieldTurns } from "../internal/pause.ts"
import type { Requeued } from "./deadLetters.ts"
import { Letters } from "./deadLetters.ts"
import type { Counter } from "./dueQueue.ts"
import { DueQueue } from "./dueQueue.ts"
import type { Lease, Owner, Redelivery } from "./group.ts"
import { Group, Reading } from "./group.ts"
import type { Content } from "./log.ts"
import { Log } from "./log.ts"
import type { Later } from "./scheduled.ts"
import { dueAt, Scheduled } from "./scheduled.ts"
import { OwnKeys } from "./transactionKeys.ts"
import { Windows } from "./windows.ts"

interface Channel {
  readonly name: string
  /** When its last group was removed, that had acknowledged everything before this number. */
  settled: number
  readonly log: Log
  limits: Limits
  /** Whether anybody knows its limits, and which definitions were taken into them. */
  isDefined: boolean
  readonly defined: WeakSet<Limits>
  isTold: boolean
  /** The groups that read it, by their names. */
  readonly readings: Map<string, Reading>
}

const beginning: Position = { millis: 0, sequence: 0 }

/** At most so many windows, and marks of a group, are forgotten in one step: some milliseconds. */
const atOnce = 2_000

export class Store {
  private readonly channels = new Map<string, Channel>()
  private readonly groups = new Map<string, Group>()
  // What is moved together has one order. Retries may be moved alone.
  private readonly added: Counter = { next: 0 }
  private readonly retries = new DueQueue<Redelivery>(this.added)
  private readonly later = new DueQueue<Later>(this.added)
  private readonly windows = new Windows()
  /** Who goes on after the operation: at once, and in a turn of its own. */
  private readonly told: Array<() => void> = []
  private readonly woken: Array<() => void> = []
  readonly letters = new Letters(this.woken, ({ channel, group }) => {
    const reading = this.groups.get(group)?.readings.get(channel)
    if (reading !== undefined) reading.removed++
  })
  /** Messages requeued to a group that does not read their channel at present. */
  private readonly homeless = new Map<string, Array<Requeued & { readonly atMillis: number }>>()
  readonly own = new OwnKeys()
  /** What is to be told, of definitions that differ. */
  readonly notices: Array<string> = []
  /** Told when something has begun to wait for an earlier time than all else. */
  readonly sleepers = new Set<() => void>()
  /** Told of the next operation, whatever it is. */
  readonly resting = new Set<() => void>()
  readonly scheduled = new Scheduled({
    wait: (dueAtMillis, later) => {
      if (dueAtMillis < this.nextDueAt) this.wake(this.sleepers)
      return this.later.add(dueAtMillis, later)
    },
    remove: (due) => this.later.remove(due),
    publish: (channel, content, nowMillis, sinceMillis) => this.publish(channel, content, nowMillis, sinceMillis),
    windows: this.windows
  })

  /**
   * Does one operation. Whoever waits for messages goes on in a turn of its own: resuming a fiber runs it at once, up to the handlers of
   * users, and these must find the operation done. Whoever waits for a time goes on at once: a test that moves its clock must find the
   * new timer.
   */
  run<A>(operation: () => A): Effect.Effect<A> {
    return Effect.withFiber((fiber) => {
      const result = operation()
      this.wake(this.resting)
      for (const resume of this.told.splice(0)) resume()
      if (this.woken.length > 0) {
        const woken = this.woken.splice(0)
        fiber.currentDispatcher.scheduleTask(() => {
          for (const resume of woken) resume()
        }, 0)
      }
      return Effect.succeed(result)
    })
  }

  /** Does one operation of a program, which goes on when those have begun who waited for it. */
  tell<A>(operation: () => A): Effect.Effect<A> {
    return Effect.tap(this.run(operation), yieldTurns)
  }

  // Messages ---------------------------------------------------------------------------------------------------------

  append(message: NewMessage, nowMillis: number): Appended {
    const { due, id, limits, window } = message
    const channel = this.channel(message.channel)
    if (limits !== undefined) this.define(channel, limits)
    const dueAtMillis = due === undefined ? nowMillis : dueAt(due, nowMillis)
    const waits = due !== undefined && this.scheduled.has(message)
    if (waits && message.replace !== true) return { _tag: "Duplicate", position: undefined, id }
    const first = window === undefined ? undefined : this.windows.find(channel.name, window.key, nowMillis)
    if (first !== undefined && !waits) return { _tag: "Duplicate", ...first }
    if (waits || dueAtMillis > nowMillis) {
      this.scheduled.add(message, dueAtMillis)
      return { _tag: "Scheduled", dueAtMillis }
    }
    const position = this.publish(channel.name, message, nowMillis, nowMillis)
    if (window !== undefined) this.windows.open(channel.name, window.key, { position, id }, nowMillis + window.millis)
    return { _tag: "Stored", position }
  }

  /** All definitions are this program's, and live as long as it does. */
  private define(channel: Channel, limits: Limits): void {
    if (channel.defined.has(limits)) return
    channel.defined.add(limits)
    const before = channel.isDefined ? channel.limits : limits
    channel.limits = Definitions.generous(before, limits)
    channel.isDefined = true
    if (channel.isTold || Definitions.record(before) === Definitions.record(limits)) return
    channel.isTold = true
    this.notices.push(Definitions.difference(channel.name, limits, Definitions.encode(channel.limits)))
  }

  /** Adds a message to the log of its channel; its time to live is counted from `sinceMillis`. */
  private publish(name: string, content: Content, nowMillis: number, sinceMillis: number): string {
    const channel = this.channel(name)
    const stored = channel.log.add(content, nowMillis, sinceMillis)
    if (channel.limits.maxLength !== undefined || channel.limits.minId !== undefined) this.limit(channel, nowMillis)
    for (const reading of channel.readings.values()) reading.stored(stored)
    return format(stored.position)
  }

  /** Forgets some of the windows and marks whose time is over; whether there are more. */
  tidy(nowMillis: number): boolean {
    let isMore = this.windows.expire(nowMillis, atOnce)
    for (const group of this.groups.values()) isMore = group.marks.tidy(nowMillis, atOnce) || isMore
    return isMore
  }

  /** Removes what every group has acknowledged and what is beyond the limits; how many there were. */
  trim(nowMillis: number): number {
    let removed = 0
    for (const channel of this.channels.values()) {
      if (channel.readings.size > 0) {
        let needed = channel.log.end
        for (const reading of channel.readings.values()) needed = Math.min(needed, reading.needs)
        removed += channel.log.removeBefore(needed)
      }
      removed += this.limit(channel, nowMillis)
    }
    return removed
  }

  /** After this long a message that is stored now is too old for its channel; `Infinity` where there is no such limit. */
  get shortestAgeMillis(): number {
    let shortest = Infinity
    for (const { limits, log } of this.channels.values()) {
      if (log.length > 0) shortest = Math.min(shortest, limits.maxAgeMillis ?? Infinity)
    }
    return shortest
  }

  private limit({ limits, log }: Channel, nowMillis: number): number {
    let removed = 0
    if (limits.maxAgeMillis !== undefined) {
      removed += log.removeBefore(log.from({ millis: nowMillis - limits.maxAgeMillis, sequence: 0 }))
    }
    if (limits.minId !== undefined) removed += log.removeBefore(log.from(parse(limits.minId)))
    if (limits.maxLength !== undefined) removed += log.removeBefore(log.end - limits.maxLength)
    return removed
  }

  // Channels and groups ----------------------------------------------------------------------------------------------

  /** The channel of this name; a new one is read from its beginning by every group whose patterns match it. */
  private channel(name: string): Channel {
    const known = this.channels.get(name)
    if (known !== undefined) return known
    const channel: Channel = {
      name,
      settled: 0,
      log: new Log(),
      limits: {},
      isDefined: false,
      defined: new WeakSet(),
      isTold: false,
      readings: new Map()
    }
    this.channels.set(name, channel)
    for (const group of this.groups.values()) if (group.reads(name)) this.attach(group, channel, beginning)
    return channel
  }

  /** A group that reads the channel already keeps its place. */
  private attach(group: Group, channel: Channel, begin: Position): void {
    if (channel.readings.has(group.name)) return
    const reading = new Reading(group, channel.name, channel.log, begin)
    channel.readings.set(group.name, reading)
    group.readings.set(channel.name, reading)
    if (reading.unreadCount > 0) group.announce(reading)
    const key = homeKey(group.name, channel.name)
    const homeless = this.homeless.get(key) ?? []
    const letters = this.letters.counts().filter((kind) => kind.group === group.name && kind.channel === channel.name)
    // What it has of an earlier life is none of what it gets from now on.
    reading.started -= homeless.length + letters.reduce((sum, { count }) => sum + count, 0)
    for (const requeued of homeless) reading.giveBack(redeliveryOf(requeued, reading), requeued.atMillis)
    this.homeless.delete(key)
  }

  /** Registers a group, creates it where it is missing, and makes the channels it names known. */
  register(name: string, patterns: ReadonlyArray<string>, names: ReadonlyArray<string>, start: Start): Group {
    const group = this.groups.get(name) ?? new Group(name, this.woken)
    this.groups.set(name, group)
    const added = patterns.filter((pattern) => !group.registered.has(pattern)).map(reading)
    for (const pattern of patterns) if (!group.registered.has(pattern)) group.registered.set(pattern, reading(pattern))
    for (const channel of this.channels.values()) {
      if (added.some((matches) => matches(channel.name))) this.attach(group, channel, beginOf(start, channel))
    }
    for (const channel of names) this.channel(channel)
    return group
  }

  removeGroup(name: string, patterns: ReadonlyArray<string>): void {
    const group = this.groups.get(name)
    if (group === undefined) return
    for (const pattern of patterns) group.registered.delete(pattern)
    const gone = patterns.map(reading)
    const ended = new Set<Reading>()
    for (const [channel, reading] of group.readings) {
      if (!gone.some((matches) => matches(channel)) || group.reads(channel)) continue
      const left = this.channels.get(channel)!
      if (left.readings.size === 1) left.settled = reading.needs
      ended.add(reading)
      group.leave(channel)
      left.readings.delete(name)
    }
    this.retries.removeWhere(({ reading }) => ended.has(reading))
    if (group.registered.size === 0) group.marks.clear()
    // Members find that they are none any more.
    group.wake(() => true)
    this.woken.push(...group.removing)
    this.forget(group)
  }

  leave(group: Group, owner: Owner): void {
    group.members.delete(owner)
    this.forget(group)
  }

  private forget(group: Group): void {
    if (group.members.size === 0 && group.readings.size === 0 && group.registered.size === 0) {
      this.groups.delete(group.name)
    }
  }

  // Settlements ------------------------------------------------------------------------------------------------------

  /** Ends the lease if `owner` holds this very hand-out; whether it did. */
  release(lease: Lease, owner: object): boolean {
    return lease.isHeldBy(owner) && lease.reading.leases.delete(lease)
  }

  /** Counts a delivery that was acknowledged. */
  acked({ isDuplicate, reading: { totals }, takeovers }: Lease): void {
    totals.acked++
    totals.crashed += takeovers
    if (isDuplicate) totals.duplicates++
  }

  redeliver(lease: Lease, attempt: number, delayMillis: number, nowMillis: number): void {
    const redelivery = lease.again(attempt)
    const { totals } = lease.reading
    totals.crashed += lease.takeovers
    if (attempt > lease.attempt) {
      totals.failed++
      totals.retried++
    }
    if (delayMillis > 0) {
      lease.reading.due++
      const dueAtMillis = nowMillis + Math.ceil(delayMillis)
      // Of retries alone: a process may have nothing else to move.
      if (dueAtMillis < (this.retries.first?.dueAtMillis ?? Infinity)) this.wake(this.sleepers)
      this.retries.add(dueAtMillis, redelivery)
    } else {
      lease.reading.giveBack(redelivery, nowMillis)
    }
  }

  bury(lease: Lease, failure: Failure, nowMillis: number): void {
    const { totals } = lease.reading
    totals.crashed += lease.takeovers
    totals.dead++
    if (failure.reason === "exhausted" || failure.reason === "term") totals.failed++
    this.letters.add(lease, failure, nowMillis)
  }

  /** Sends the messages of dead letters back to their groups; the ids of those that were there. */
  requeueLetters(
    items: ReadonlyArray<{ readonly letterId: string; readonly payload?: string | undefined }>,
    nowMillis: number
  ): ReadonlyArray<string> {
    const requeued = this.letters.requeue(items)
    for (const one of requeued.values()) {
      const reading = this.groups.get(one.group)?.readings.get(one.channel)
      if (reading !== undefined) {
        reading.giveBack(redeliveryOf(one, reading), nowMillis)
        continue
      }
      const key = homeKey(one.group, one.channel)
      const others = this.homeless.get(key)
      const waiting = { ...one, atMillis: nowMillis }
      if (others === undefined) this.homeless.set(key, [waiting])
      else others.push(waiting)
    }
    return [...requeued.keys()]
  }

  // Time -------------------------------------------------------------------------------------------------------------

  /** When the next message waits to be moved. */
  private get nextDueAt(): number {
    return Math.min(this.retries.first?.dueAtMillis ?? Infinity, this.later.first?.dueAtMillis ?? Infinity)
  }

  /** Resumes those who wait for a time, after the operation. */
  wake(sleepers: Set<() => void>): void {
    this.told.push(...sleepers)
    sleepers.clear()
  }

  promote(
    limit: number,
    nowMillis: number,
    only?: "retries"
  ): { readonly moved: number; readonly nextInMillis: number | undefined } {
    let moved = 0
    for (; moved < limit; moved++) {
      if (only === "retries" || this.retries.isBefore(this.later)) {
        const due = this.retries.first
        if (due === undefined || due.dueAtMillis > nowMillis) break
        this.retries.remove(due)
        due.value.reading.due--
        due.value.reading.giveBack(due.value, nowMillis)
      } else {
        const due = this.later.first
        if (due === undefined || due.dueAtMillis > nowMillis) break
        this.later.remove(due)
        this.scheduled.promoted(due.value, nowMillis)
      }
    }
    const nextDueAt = only === undefined ? this.nextDueAt : this.retries.first?.dueAtMillis ?? Infinity
    return {
      moved,
      nextInMillis: nextDueAt === Infinity ? undefined : Math.max(0, Math.ceil(nextDueAt - nowMillis))
    }
  }

  /** Whether something waits that was due at or before this time. */
  overdue(millis: number): boolean {
    return this.nextDueAt <= millis
  }

  // Looking ----------------------------------------------------------------------------------------------------------

  stats(matches: (channel: string) => boolean, nowMillis: number): ReadonlyArray<ChannelStats> {
    const letters = new Map<string, number>()
    for (const { channel, count, group } of this.letters.counts()) {
      const key = homeKey(group, channel)
      letters.set(key, (letters.get(key) ?? 0) + count)
    }
    return [...this.channels.keys()].filter(matches).sort().map((channel): ChannelStats => {
      const { log, readings } = this.channels.get(channel)!
      return {
        channel,
        published: log.end,
        length: log.length,
        bytes: undefined,
        scheduled: this.scheduled.count(channel),
        groups: [...readings.keys()].sort().map((group) => {
          const reading = readings.get(group)!
          const pending = new Map<object, number>()
          for (const { owner } of reading.leases) pending.set(owner, (pending.get(owner) ?? 0) + 1)
          const { due, leases, oldestAtMillis, readyCount, removed, started, totals, unreadCount } = reading
          return balance(log.end, log.length, {
            group,
            channel,
            lag: unreadCount,
            pending: leases.size,
            ready: readyCount,
            due,
            dead: letters.get(homeKey(group, channel)) ?? 0,
            removed,
            started,
            oldestMillis: oldestAtMillis === undefined ? undefined : Math.max(0, nowMillis - oldestAtMillis),
            consumers: [...reading.group.members].filter(({ reads }) => reads(channel)).map((member) => ({
              consumer: member.consumer,
              pending: pending.get(member) ?? 0,
              idleMillis: nowMillis - member.heardAtMillis
            })),
            totals: { ...totals }
          })
        })
      }
    })
  }

  info(matches: (channel: string) => boolean): BrokerInfo {
    const names = [...this.channels.keys()].filter(matches).sort()
    return {
      channels: names.map((channel) => {
        const { log, readings } = this.channels.get(channel)!
        return {
          channel,
          length: log.length,
          groups: [...readings.keys()].sort().map((group) => {
            const reading = readings.get(group)!
            return {
              group,
              channel,
              lag: reading.unreadCount,
              pending: reading.leases.size,
              ready: reading.readyCount
            }
          })
        }
      }),
      waiting: this.retries.size + this.later.size,
      dead: this.letters.size
    }
  }
}

const homeKey = (group: string, channel: string) => `${group}\n${channel}`

const redeliveryOf = (
  { deliveryCount, history, isSuspect, stored }: Requeued,
  reading: Reading
): Redelivery => ({
  reading,
  stored,
  attempt: 1,
  deliveryCount,
  crashes: 0,
  isSuspect,
  history
})

/** Up to where all groups of a channel have acknowledged everything: what is left of that only waits to be removed. */
const settledBy = ({ log, readings, settled }: Channel): Position => {
  let needed = readings.size === 0 ? settled : Infinity
  for (const { needs } of readings.values()) needed = Math.min(needed, needs)
  if (needed === 0) return beginning
  if (needed >= log.end) return log.last
  const { millis, sequence } = log.at(Math.max(needed, log.first)).position
  return sequence > 0 ? { millis, sequence: sequence - 1 } : { millis: millis - 1, sequence: Infinity }
}

const beginOf = (start: Start, channel: Channel): Position => {
  const { log } = channel
  switch (start._tag) {
    case "Earliest":
      return settledBy(channel)
    case "Latest":
      return log.last
    case "Position":
      return parse(start.position)
    case "Time":
      return { millis: Math.ceil(start.atMillis) - 1, sequence: Infinity }
  }
}
