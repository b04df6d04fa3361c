/**
 * Which streams a member reads: the logs of the channels that its patterns match, and the retry streams of its group.
 *
 * A sync compares them with the registry of the shard, and attaches the group where it is missing. Whatever a fault or another program
 * has removed (a channel, the registration, the place of the group in a stream) is created again and named in the log.
 */
import { refusedCommand } from "../../redis/protocol.ts"
import { Deferred, Effect } from "effect"
import { GroupRemoved } from "../../Broker.ts"
import type { Ordering } from "../../broker/ordering.ts"
import { OrderingConflict } from "../../broker/ordering.ts"
import { RedisError } from "../../Redis.ts"
import type { Removals } from "../attachment.ts"
import * as Attach from "./attach.ts"
import type { MemberContext } from "./context.ts"
import type { GroupStream } from "./lease.ts"
import * as KnownPauses from "./knownPauses.ts"
import type { Readiness } from "./readiness.ts"
import * as Registry from "./registry.ts"

/** A member of more streams than this is one of many streams: it reads and checks them at a measured pace, and not all each time. */
export const fewStreams = 16

const itsRegistration = "its registration"

/** At most this many missing items are named in one log line. */
const mostNamed = 5

/** A key that is not a stream is checked again after this time. */
const leftOutMillis = 2_000

const isNotIn = (listed: ReadonlyArray<string>) => {
  const all = new Set(listed)
  return (name: string) => !all.has(name)
}

/** The names and patterns of a member. */
export interface Selection {
  /** The names and patterns that the group reads in this shard. */
  readonly patterns: ReadonlyArray<string>
  /** The names among them: these channels are created when they do not exist. */
  readonly names: ReadonlyArray<string>
  readonly matches: (channel: string) => boolean
}

/** Logs what was created again. `isAll`: nothing of the group was left. */
const warnGone = (group: string, gone: ReadonlyArray<string>, isAll: boolean) =>
  Effect.logWarning(
    `rotif: group "${group}" found gone from Redis, and made again: ${gone.slice(0, mostNamed).join(", ")}` +
      (gone.length > mostNamed ? ` and ${gone.length - mostNamed} more` : "") +
      (isAll
        ? ". Most likely Redis has lost all its data (a restart without persistence, FLUSHALL): what was not handled is lost, with " +
          "delays, retries, dead letters and recurring messages"
        : ". What is still in a log comes again; what was in a log that is gone and was not handled is lost")
  )

export const make = (
  context: MemberContext,
  { matches, names, patterns }: Selection,
  readiness: Pick<Readiness, "keep" | "reset">
) => {
  const { keys, membership: { group, leaseMillis, ordering: asked }, monotonic } = context
  const attach = Attach.make(context, patterns)
  const pauses = KnownPauses.make(context)
  const registry = Registry.make(context, patterns, (reply) => {
    if (pauses.take(reply)) arrange()
  })

  /** The streams that are read, and those that are not read any more while something of them is held. */
  const streams = new Map<string, GroupStream>()
  let listed: ReadonlyArray<Omit<GroupStream, "held" | "isGated">> = []
  /** The keys of those that are read, without what is paused, and of the retry streams among them. */
  let all: ReadonlyArray<string> = []
  let retries: ReadonlyArray<string> = []
  let known = Registry.unknown
  /** When the registry was last read, and when it was last asked whether there are pauses. */
  let lookedAt = -Infinity
  let askedAt = -Infinity
  let isStale = true
  /** Whether the group has been attached and registered by this member. */
  let isEstablished = false
  /** The removals of the group that were known when it was registered: a later one ends this member. */
  let removals: Removals = []
  let removed: GroupRemoved | undefined
  let ordering: Ordering = "none"
  let conflict: OrderingConflict | undefined
  const removal = Deferred.makeUnsafe<never, GroupRemoved>()
  /** The keys in the place of streams that are not streams, and when they are checked again. */
  let leftOut: ReadonlySet<string> = new Set()
  let checkAgainAt = Infinity

  const failRemoved = Effect.suspend(() => {
    removed = new GroupRemoved({ group, patterns })
    Deferred.doneUnsafe(removal, Effect.fail(removed))
    return Effect.fail(refusedCommand("listSources", removed.message))
  })

  /** The channels where the start option counts: those that were there before the group, and that no registered pattern of it reaches. */
  const startingIn = (
    channels: ReadonlyArray<string>,
    registered: ReadonlyArray<number>,
    createdNow: ReadonlySet<string>
  ): ReadonlySet<string> => {
    if (isEstablished || !registered.includes(0)) return new Set()
    const unregistered = new Set(patterns.filter((_, i) => registered[i] === 0))
    const isNew = (channel: string) => !registered.includes(1) || unregistered.has(channel)
    return new Set(channels.filter((channel) => !createdNow.has(channel) && isNew(channel)))
  }

  /**
   * Leaves out the keys in the place of streams that are not streams: a read that names one is refused as a whole. They are logged once
   * and checked again. A channel that was asked for by its name is not left out: a read that can never work must not look like success.
   */
  const leaveOut = Effect.fnUntraced(function*(wrong: ReadonlyArray<string>) {
    const named = new Set(names.map(keys.log))
    const asked = wrong.find((key) => named.has(key))
    if (asked !== undefined) {
      return yield* refusedCommand("attach", `WRONGTYPE ${asked} is no stream`)
    }
    const fresh = wrong.filter((key) => !leftOut.has(key))
    leftOut = new Set(wrong)
    checkAgainAt = wrong.length > 0 ? monotonic() + leftOutMillis : Infinity
    if (fresh.length > 0) {
      yield* Effect.logError(
        `rotif: group "${group}" goes on without ${fresh.join(", ")}: not a stream (WRONGTYPE); remove the wrong key`
      )
    }
  })

  /** Leaves out what is paused. */
  const arrange = () => {
    const read = listed.filter(({ channel }) => !pauses.covers(channel))
    all = read.map(({ key }) => key)
    retries = read.filter(({ isRetry }) => isRetry).map(({ key }) => key)
    readiness.keep(new Set(all))
  }

  /** Makes the list of streams that of the registry. */
  const remember = (channels: ReadonlyArray<string>, retryChannels: ReadonlyArray<string>, isReset: boolean) => {
    listed = [
      ...retryChannels.map((channel) => ({ key: keys.retry(group, channel), channel, isRetry: true })),
      ...channels.map((channel) => ({ key: keys.log(channel), channel, isRetry: false }))
    ].filter(({ key }) => !leftOut.has(key))
    for (const stream of listed) {
      if (!streams.has(stream.key)) streams.set(stream.key, { ...stream, held: new Map(), isGated: false })
    }
    const current = new Set(listed.map(({ key }) => key))
    for (const [key, { held }] of streams) if (!current.has(key) && held.size === 0) streams.delete(key)
    if (isReset) readiness.reset()
    arrange()
  }

  const refuse = (recorded: Ordering = "none") => {
    conflict = new OrderingConflict({ group, recorded, asked: asked ?? "none" })
    return new RedisError({ reason: "Refused", command: "join", message: conflict.message })
  }

  const look = Effect.fnUntraced(function*(heal: boolean): Effect.fn.Return<void, RedisError> {
    // The reply may lie in the socket while this process is frozen.
    const from = monotonic()
    let found = yield* registry.read(heal ? Registry.unknown : known)
    lookedAt = askedAt = from
    if (found === undefined) return
    if (!isEstablished && asked !== undefined) {
      // Before anything is created for the group.
      const recorded = yield* registry.ordering
      if (recorded !== undefined && recorded !== asked) return yield* refuse(recorded)
    }
    const now = found.removals
    if (!isEstablished) removals = patterns.map((pattern, i) => [pattern, now[i] ?? ""])
    else if (removals.some(([, known], i) => now[i] !== "" && now[i] !== known)) return yield* failRemoved
    // Items that were there once and are not: only a fault or another program removes them.
    const gone: Array<string> = []
    const read = [...streams.values()]
    const missing = new Set([...names, ...read.map(({ channel }) => channel)].filter(isNotIn(found.channels)))
    yield* registry.create(missing)
    for (const name of missing) if (streams.has(keys.log(name))) gone.push(`the channel "${name}"`)
    if (missing.size > 0) found = (yield* registry.read(Registry.unknown)) ?? found
    const { registered, retries } = found
    const relisted = yield* registry.relist(
      read.filter(({ isRetry }) => isRetry).map(({ channel }) => channel).filter(isNotIn(retries))
    )
    if (relisted.length > 0) gone.push("the list of its retry streams")
    if (isEstablished && registered.includes(0)) gone.push(itsRegistration)

    const channels = found.channels.filter(matches)
    const retryChannels = [...retries, ...relisted].filter(matches)
    const isKnown = (key: string) => !heal && streams.has(key)
    const unknown = channels.filter((channel) => !isKnown(keys.log(channel)))
    const starting = startingIn(channels, registered, missing)
    const attached = Attach.together([
      yield* attach.logsAtStart(unknown.filter((channel) => starting.has(channel)), removals),
      yield* attach.logs(unknown.filter((channel) => !starting.has(channel)), removals),
      yield* attach.retryStreams(retryChannels.filter((channel) => !isKnown(keys.retry(group, channel))), removals)
    ])
    // The group was removed since the look: a member that only begins looks again, and creates a new group.
    if (attached === undefined) return yield* isEstablished ? failRemoved : look(heal)
    yield* leaveOut(attached.wrong)
    for (const stream of attached.created.flatMap((key) => streams.get(key) ?? [])) {
      gone.push(`its place in the ${stream.isRetry ? "retry stream" : "log"} of "${stream.channel}"`)
    }

    // A registration that is gone went with a flush of the namespace.
    if (!isEstablished || heal || registered.includes(0)) {
      const registered = yield* registry.register(removals)
      if (registered.isRefused) return yield* refuse(registered.ordering)
      if (registered.wasRemoved) return yield* isEstablished ? failRemoved : look(heal)
      ordering = registered.ordering ?? "none"
    }
    isEstablished = true
    remember(channels, retryChannels, heal || attached.created.length > 0)
    known = found
    if (gone.length > 0) yield* warnGone(group, gone, attached.created.length > 0 && gone.includes(itsRegistration))
  })

  /**
   * Brings the list up to date, and attaches the group where it is missing. `heal`: also where it is known to have been. The group is
   * attached before it is registered: a crash in between leaves it unregistered, and the next start repeats both.
   */
  const sync = (heal: boolean): Effect.Effect<void, RedisError> =>
    Effect.suspend(() => {
      // An announcement during the look causes another look.
      isStale = false
      return Effect.onError(look(heal), () =>
        Effect.sync(() => {
          isStale = true
        }))
    })

  /** Asks whether there are pauses. While there are none at all, as it mostly is, that takes one command; else everything is read. */
  const ask = Effect.gen(function*() {
    const from = monotonic()
    if (pauses.current().length > 0 || !(yield* registry.isWithoutPauses)) return yield* sync(false)
    askedAt = from
  })

  /** When it is to be asked again whether there is a pause. */
  const nextAskAt = () => askedAt + leaseMillis / 2

  /**
   * Whether it was asked for pauses within a lease. A member that was frozen knows of no pause of that time: it takes nothing before it has asked.
   */
  const isCurrent = () => monotonic() < askedAt + leaseMillis

  return {
    streams: streams as ReadonlyMap<string, GroupStream>,
    sync,

    /** The pauses of the group. */
    pauses,

    /** The keys of the streams to read. */
    all: () => all,

    /** The keys of all streams, also of those that are paused. */
    listed: () => listed.map(({ key }) => key),

    /** Those of them that are retry streams. */
    retries: () => retries,

    /** Whether a read may go on without a sync, now and later, until something is announced. */
    isSettled: () => !isStale && checkAgainAt === Infinity && isCurrent(),

    isCurrent,

    nextAskAt,

    /** Makes the next read sync first: something may have been added or removed. */
    markStale: () => {
      isStale = true
    },

    /** Syncs after an event, when a key that was left out is due for another check, or when the last sync is too old. */
    syncIfDue: Effect.suspend(() =>
      monotonic() >= checkAgainAt ? sync(true) : isStale || !isCurrent() ? sync(false) : Effect.void
    ),

    /**
     * Syncs if something was announced, or if nothing was read for a lease: a removal is not always announced. Pauses are asked for after
     * half a lease.
     */
    checkIfDue: Effect.suspend(() =>
      isStale || monotonic() >= lookedAt + leaseMillis ? sync(false) : monotonic() >= nextAskAt() ? ask : Effect.void
    ),

    /** Set when the group was removed: it is not created again, and the member has ended. */
    removed: () => removed,

    /** How the group treats ordering keys. */
    ordering: () => ordering,

    /** Set when this member asks for another treatment of ordering keys than its group has. */
    conflict: () => conflict,

    awaitRemoval: Deferred.await(removal)
  }
}

export type Sources = ReturnType<typeof make>
