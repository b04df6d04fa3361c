/**
 * The state of a broker in memory.
 *
 * Each operation is done at once, at a time that is passed to it. So an interrupted fiber leaves nothing half done.
 */
import { Effect } from "effect"
import type { Appended, Failure, GroupState, Limits, Membership, NewMessage, Start } from "../Broker.ts"
import { OrderingConflict } from "../Broker.ts"
import * as Definitions from "../broker/limits.ts"
import type { Position } from "../broker/position.ts"
import { format, parse } from "../broker/position.ts"
import type { ChannelStats } from "../broker/statistics.ts"
import { balance } from "../broker/statistics.ts"
import { pausedOn } from "../internal/pauses.ts"
import { reading } from "../internal/pattern.ts"
import { yieldTurns } from "../internal/pause.ts"
import { Signal } from "../internal/wake.ts"
import type { Requeued } from "./deadLetters.ts"
import { Letters } from "./deadLetters.ts"
import type { Counter } from "./dueQueue.ts"
import { DueQueue } from "./dueQueue.ts"
import type { Lease, Owner, Redelivery } from "./group.ts"
import { Group, GroupCursor } from "./group.ts"
import type { Content } from "./log.ts"
import { Log } from "./log.ts"
import type { Later } from "./scheduled.ts"
import { dueAt, Scheduled } from "./scheduled.ts"
import { Pauses } from "./pauses.ts"
import { OwnKeys } from "./transactionKeys.ts"
import { Windows } from "./windows.ts"

interface Channel {
  readonly name: string
  /** Messages before this number were acknowledged when the last group was removed. */
  settled: number
  readonly log: Log
  limits: Limits
  /** Whether its limits are defined, and the definitions that they include. */
  isDefined: boolean
  readonly defined: WeakSet<Limits>
  isTold: boolean
  /** The groups that read the channel, by name. */
  readonly cursors: Map<string, GroupCursor>
}

const beginning: Position = { millis: 0, sequence: 0 }

/** One step forgets at most this many windows, and as many keys of each group: a few milliseconds. */
const atOnce = 2_000

export class Store {
  private readonly channels = new Map<string, Channel>()
  private readonly groups = new Map<string, Group>()
  // What is moved together has one order. Retries may be moved alone.
  private readonly added: Counter = { next: 0 }
  private readonly retries = new DueQueue<Redelivery>(this.added)
  private readonly later = new DueQueue<Later>(this.added)
  private readonly windows = new Windows()
  /** Fibers that are resumed after the operation: at once, or in a turn of their own. */
  private readonly resumedFirst: Array<() => void> = []
  private readonly resumed: Array<() => void> = []
  readonly letters = new Letters(this.resumed, ({ channel, group }) => {
    const cursor = this.groups.get(group)?.cursors.get(channel)
    if (cursor !== undefined) cursor.removed++
  })
  /** Messages requeued to a group that does not read their channel now. */
  private readonly orphans = new Map<string, Array<Requeued & { readonly atMillis: number }>>()
  readonly own = new OwnKeys()
  readonly pauses = new Pauses()
  /** Woken when a group is paused or resumed. */
  readonly pausesChanged = new Signal()
  /** Warnings of definitions that differ, to be logged. */
  readonly notices: Array<string> = []
  /** Woken when a message waits for an earlier time than all others. */
  readonly earlier = new Signal()
  /** Woken by every operation. */
  readonly anyOperation = new Signal()
  readonly scheduled = new Scheduled({
    wait: (dueAtMillis, later) => {
      if (dueAtMillis < this.nextDueAt) this.wake(this.earlier)
      return this.later.add(dueAtMillis, later)
    },
    remove: (due) => this.later.remove(due),
    publish: (channel, content, nowMillis, sinceMillis) => this.publish(channel, content, nowMillis, sinceMillis),
    windows: this.windows
  })

  /**
   * Does one operation, and resumes the fibers that waited for it.
   *
   * A fiber that waits for messages is resumed in a turn of its own: it runs at once, up to the handlers of users, and these must find the
   * operation done. A fiber that waits for a time is resumed at once: a test that moves its clock must find the new timer.
   */
  run<A>(operation: () => A): Effect.Effect<A> {
    return Effect.withFiber((fiber) => {
      const result = operation()
      this.wake(this.anyOperation)
      for (const resume of this.resumedFirst.splice(0)) resume()
      if (this.resumed.length > 0) {
        const resumed = this.resumed.splice(0)
        fiber.currentDispatcher.scheduleTask(() => {
          for (const resume of resumed) resume()
        }, 0)
      }
      return Effect.succeed(result)
    })
  }

  /** Does one operation, and lets the fibers that waited for it begin before the caller goes on. */
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

  /** Adds a definition of limits. All definitions are this program's, and none ends before it. */
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
    for (const cursor of channel.cursors.values()) cursor.stored(stored)
    return format(stored.position)
  }

  /** Forgets some windows and keys whose time is over, and returns whether there are more. */
  tidy(nowMillis: number): boolean {
    let isMore = this.windows.expire(nowMillis, atOnce)
    for (const group of this.groups.values()) isMore = group.marks.tidy(nowMillis, atOnce) || isMore
    return isMore
  }

  /** Removes messages that every group has acknowledged or that are beyond the limits, and returns their number. */
  trim(nowMillis: number): number {
    let removed = 0
    for (const channel of this.channels.values()) {
      if (channel.cursors.size > 0) {
        let needed = channel.log.end
        for (const cursor of channel.cursors.values()) needed = Math.min(needed, cursor.needs)
        removed += channel.log.removeBefore(needed)
      }
      removed += this.limit(channel, nowMillis)
    }
    return removed
  }

  /** The shortest limit of age of a channel with messages; `Infinity`: there is none. */
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

  /** Returns the channel of this name. A new channel is read from its beginning by every group whose patterns match it. */
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
      cursors: new Map()
    }
    this.channels.set(name, channel)
    for (const group of this.groups.values()) if (group.reads(name)) this.attach(group, channel, beginning)
    return channel
  }

  /** Attaches a group to a channel. A group that reads the channel already keeps its place. */
  private attach(group: Group, channel: Channel, begin: Position): void {
    if (channel.cursors.has(group.name)) return
    const cursor = new GroupCursor(group, channel.name, channel.log, begin)
    channel.cursors.set(group.name, cursor)
    group.cursors.set(channel.name, cursor)
    if (cursor.unreadCount > 0) group.announce(cursor)
    const key = keyOf(group.name, channel.name)
    const orphans = this.orphans.get(key) ?? []
    const letters = this.letters.counts().filter((kind) => kind.group === group.name && kind.channel === channel.name)
    // Messages from before a removal of the group do not count as delivered to it now.
    cursor.started -= orphans.length + letters.reduce((sum, { count }) => sum + count, 0)
    for (const requeued of orphans) cursor.giveBack(redeliveryOf(requeued, cursor), requeued.atMillis)
    this.orphans.delete(key)
  }

  /** Registers a group, and creates it and the channels it names where they are missing. */
  register(name: string, patterns: ReadonlyArray<string>, names: ReadonlyArray<string>, start: Start): Group {
    const group = this.groups.get(name) ?? new Group(name, this.resumed)
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
    const ended = new Set<GroupCursor>()
    for (const [channel, cursor] of group.cursors) {
      if (!gone.some((matches) => matches(channel)) || group.reads(channel)) continue
      const left = this.channels.get(channel)!
      if (left.cursors.size === 1) left.settled = cursor.needs
      ended.add(cursor)
      group.leave(channel)
      left.cursors.delete(name)
    }
    this.retries.removeWhere(({ cursor }) => ended.has(cursor))
    if (group.registered.size === 0) {
      group.marks.clear()
      group.ordering = undefined
      this.pauses.end(name, undefined, 0)
      this.wake(this.pausesChanged)
    }
    // Its members learn that the group was removed.
    group.wake(() => true)
    this.resumed.push(...group.removing)
    this.forget(group)
  }

  /** Finds the reason why a member cannot join, if there is one. */
  conflictOf({ group, ordering }: Membership): OrderingConflict | undefined {
    const recorded = this.groups.get(group)?.ordering
    return ordering === undefined || recorded === undefined || recorded === ordering
      ? undefined
      : new OrderingConflict({ group, recorded, asked: ordering })
  }

  leave(group: Group, owner: Owner): void {
    group.members.delete(owner)
    this.forget(group)
  }

  private forget(group: Group): void {
    if (group.members.size === 0 && group.cursors.size === 0 && group.registered.size === 0) {
      this.groups.delete(group.name)
    }
  }

  /** The registered groups, and those that are paused. */
  listGroups(nowMillis: number, only: string | undefined): ReadonlyArray<GroupState> {
    const names = new Set([...this.groups.keys(), ...this.pauses.groups()])
    return [...names].filter((name) => only === undefined || name === only).sort().map((name): GroupState => {
      const group = this.groups.get(name)
      return {
        group: name,
        shard: 0,
        patterns: [...group?.registered.keys() ?? []],
        members: [...group?.members ?? []].map(({ consumer, heardAtMillis, keeps, patterns }) => ({
          consumer,
          patterns,
          idleMillis: nowMillis - heardAtMillis,
          isAlive: true,
          keeps: keeps.map(({ id }) => id)
        })),
        pauses: this.pauses.of(name, nowMillis)
      }
    }).filter(({ members, patterns, pauses }) => members.length + patterns.length + pauses.length > 0)
  }

  /** How many messages of these channels are handed out and not settled. */
  handedOut(group: string, matches: (channel: string) => boolean): number {
    let count = 0
    for (const cursor of this.groups.get(group)?.cursors.values() ?? []) {
      if (matches(cursor.channel)) count += cursor.leases.size
    }
    return count
  }

  // Settlements ------------------------------------------------------------------------------------------------------

  /** Ends the lease if `owner` holds this very hand-out, and returns whether it did. */
  release(lease: Lease, owner: object): boolean {
    return lease.isHeldBy(owner) && lease.cursor.leases.delete(lease)
  }

  /** Counts an acknowledged delivery. */
  acked({ isDuplicate, cursor: { totals }, takeovers }: Lease): void {
    totals.acked++
    totals.crashed += takeovers
    if (isDuplicate) totals.duplicates++
  }

  redeliver(lease: Lease, attempt: number, delayMillis: number, nowMillis: number): void {
    const redelivery = lease.again(attempt)
    const { totals } = lease.cursor
    totals.crashed += lease.takeovers
    if (attempt > lease.attempt) {
      totals.failed++
      totals.retried++
    }
    if (delayMillis > 0) {
      lease.cursor.due++
      const dueAtMillis = nowMillis + Math.ceil(delayMillis)
      // Compared with retries alone: a process may promote nothing else.
      if (dueAtMillis < (this.retries.first?.dueAtMillis ?? Infinity)) this.wake(this.earlier)
      this.retries.add(dueAtMillis, redelivery)
    } else {
      lease.cursor.giveBack(redelivery, nowMillis)
    }
  }

  bury(lease: Lease, failure: Failure, nowMillis: number): void {
    const { totals } = lease.cursor
    totals.crashed += lease.takeovers
    totals.dead++
    if (failure.reason === "exhausted" || failure.reason === "term") totals.failed++
    this.letters.add(lease, failure, nowMillis)
  }

  /** Moves the messages of dead letters back to their groups, and returns the ids of the letters that were found. */
  requeueLetters(
    items: ReadonlyArray<{ readonly letterId: string; readonly payload?: string | undefined }>,
    nowMillis: number
  ): ReadonlyArray<string> {
    const requeued = this.letters.requeue(items)
    for (const one of requeued.values()) {
      const cursor = this.groups.get(one.group)?.cursors.get(one.channel)
      if (cursor !== undefined) {
        cursor.giveBack(redeliveryOf(one, cursor), nowMillis)
        continue
      }
      const key = keyOf(one.group, one.channel)
      const others = this.orphans.get(key)
      const waiting = { ...one, atMillis: nowMillis }
      if (others === undefined) this.orphans.set(key, [waiting])
      else others.push(waiting)
    }
    return [...requeued.keys()]
  }

  // Time -------------------------------------------------------------------------------------------------------------

  /** The due time of the next waiting message. */
  private get nextDueAt(): number {
    return Math.min(this.retries.first?.dueAtMillis ?? Infinity, this.later.first?.dueAtMillis ?? Infinity)
  }

  /** Resumes the fibers that wait for a signal, after the operation. */
  wake(signal: Signal): void {
    this.resumedFirst.push(...signal.take())
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
        due.value.cursor.due--
        due.value.cursor.giveBack(due.value, nowMillis)
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

  /** Whether a waiting message was due at or before this time. */
  overdue(millis: number): boolean {
    return this.nextDueAt <= millis
  }

  // Statistics -------------------------------------------------------------------------------------------------------

  stats(matches: (channel: string) => boolean, nowMillis: number): ReadonlyArray<ChannelStats> {
    const letters = new Map<string, number>()
    for (const { channel, count, group } of this.letters.counts()) {
      const key = keyOf(group, channel)
      letters.set(key, (letters.get(key) ?? 0) + count)
    }
    return [...this.channels.keys()].filter(matches).sort().map((channel): ChannelStats => {
      const { log, cursors } = this.channels.get(channel)!
      return {
        channel,
        published: log.end,
        length: log.length,
        bytes: undefined,
        scheduled: this.scheduled.count(channel),
        groups: [...cursors.keys()].sort().map((group) => {
          const cursor = cursors.get(group)!
          const pending = new Map<object, number>()
          for (const { owner } of cursor.leases) pending.set(owner, (pending.get(owner) ?? 0) + 1)
          const { due, oldestAtMillis, pendingCount, readyCount, removed, started, totals, unreadCount } = cursor
          return balance(log.end, log.length, {
            group,
            channel,
            lag: unreadCount,
            pending: pendingCount,
            ready: readyCount,
            due,
            dead: letters.get(keyOf(group, channel)) ?? 0,
            removed,
            started,
            oldestMillis: oldestAtMillis === undefined ? undefined : Math.max(0, nowMillis - oldestAtMillis),
            consumers: [...cursor.group.members].filter(({ reads }) => reads(channel)).map((member) => ({
              consumer: member.consumer,
              pending: pending.get(member) ?? 0,
              idleMillis: nowMillis - member.heardAtMillis
            })),
            pause: pausedOn(this.pauses.of(group, nowMillis), channel),
            totals: { ...totals }
          })
        })
      }
    })
  }

  /** Messages that wait for a time. */
  get waiting(): number {
    return this.retries.size + this.later.size
  }
}

const keyOf = (group: string, channel: string) => `${group}\n${channel}`

const redeliveryOf = (
  { deliveryCount, history, isSuspect, stored }: Requeued,
  cursor: GroupCursor
): Redelivery => ({
  cursor,
  stored,
  attempt: 1,
  deliveryCount,
  crashes: 0,
  isSuspect,
  history
})

/** Returns the position up to which all groups of a channel have acknowledged everything. */
const settledBy = ({ log, cursors, settled }: Channel): Position => {
  let needed = cursors.size === 0 ? settled : Infinity
  for (const { needs } of cursors.values()) needed = Math.min(needed, needs)
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
