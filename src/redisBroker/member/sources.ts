/**
 * Which streams a member reads: the logs of the channels that its patterns match, and the retry streams of its group.
 *
 * A sync compares them with the registry of the shard, and attaches the group where it is missing. Whatever a fault or another program
 * has removed (a channel, the registration, the place of the group in a stream) is created again and named in the log.
 */
import { Deferred, Effect } from "effect"
import { GroupRemoved } from "../../Broker.ts"
import { RedisError } from "../../Redis.ts"
import { registrationField } from "../keys.ts"
import { unlistedRetries } from "../scripts/checks/unlistedRetries.ts"
import { listSources } from "../scripts/member/listSources.ts"
import { registerGroup } from "../scripts/member/registerGroup.ts"
import { createChannel } from "../scripts/publish/createChannel.ts"
import type { Removals } from "./attach.ts"
import * as Attach from "./attach.ts"
import type { MemberContext } from "./context.ts"
import type { GroupStream } from "./lease.ts"
import type { Readiness } from "./readiness.ts"

const itsRegistration = "its registration"

/** At most this many missing items are named in one log line. */
const mostNamed = 5

/** A key that is not a stream is checked again after this time. */
const leftOutMillis = 2_000

/** The names and patterns of a member. */
export interface Selection {
  /** The names and patterns that the group reads in this shard. */
  readonly patterns: ReadonlyArray<string>
  /** The names among them: these channels are created when they do not exist. */
  readonly names: ReadonlyArray<string>
  readonly matches: (channel: string) => boolean
}

/** The reply of `listSources`. */
interface Registry {
  readonly version: string
  readonly channels: ReadonlyArray<string>
  /** The channels for which the group has a retry stream. */
  readonly retries: ReadonlyArray<string>
  /** 1 for each pattern that is registered, 0 for each that is not. */
  readonly registered: ReadonlyArray<number>
  /** The last removal of each pattern; empty if there was none. */
  readonly removals: ReadonlyArray<string>
}

export const make = (
  context: MemberContext,
  { matches, names, patterns }: Selection,
  readiness: Pick<Readiness, "keep" | "reset">
) => {
  const { connection, keys, membership: { group, leaseMillis }, monotonic } = context
  const attach = Attach.make(context, patterns)
  const fields = patterns.map((pattern) => registrationField(group, pattern))

  /** The streams that are read, and those that are not read any more while something of them is held. */
  const streams = new Map<string, GroupStream>()
  let all: ReadonlyArray<string> = []
  let retries: ReadonlyArray<string> = []
  let version = ""
  // The numbers of registered items at that version: if there are fewer, something was removed.
  let registeredChannels = 0
  let registeredRetries = 0
  let nextCheckAt = 0
  let isStale = true
  /** Whether the group has been attached and registered by this member. */
  let isEstablished = false
  /** The removals of the group that were known when it was registered: a later one ends this member. */
  let removals: Removals = []
  let removed: GroupRemoved | undefined
  const removal = Deferred.makeUnsafe<never, GroupRemoved>()
  /** The keys in the place of streams that are not streams, and when they are checked again. */
  let leftOut: ReadonlySet<string> = new Set()
  let checkAgainAt = Infinity

  const failRemoved = Effect.suspend(() => {
    removed = new GroupRemoved({ group, patterns })
    Deferred.doneUnsafe(removal, Effect.fail(removed))
    return Effect.fail(new RedisError({ reason: "Refused", command: "look", message: removed.message }))
  })

  /** Reads the registry; `undefined` if it is as the member knows it by that version. */
  const ask = (known: string): Effect.Effect<Registry | undefined, RedisError> =>
    Effect.map(
      connection.evaluate(
        listSources,
        [keys.meta, keys.channels, keys.groups, keys.retries(group), keys.removed(group)],
        [known, registeredChannels, registeredRetries, ...fields]
      ),
      (reply) => {
        const [version, channels, retries = [], registered = [], removals = []] = reply as readonly [
          string,
          Array<string>?,
          Array<string>?,
          Array<number>?,
          Array<string>?
        ]
        return channels === undefined ? undefined : { version, channels, retries, registered, removals }
      }
    )

  /** Creates the channels that were asked for by name, or read before, and are not registered. */
  const createMissing = Effect.fnUntraced(function*(listed: ReadonlyArray<string>) {
    const registered = new Set(listed)
    const known = [...streams.values()].map(({ channel }) => channel)
    const missing = new Set([...names, ...known].filter((name) => !registered.has(name)))
    for (const name of missing) {
      yield* connection.evaluate(
        createChannel,
        [keys.meta, keys.channels, keys.log(name)],
        [name, "", keys.events]
      )
    }
    return missing
  })

  /** Lists the retry streams again that this member reads and that are not listed any more, if they exist; returns their channels. */
  const relist = (listed: ReadonlyArray<string>) =>
    Effect.filter(
      [...streams.values()].filter(({ channel, isRetry }) => isRetry && !listed.includes(channel)).map(({ channel }) =>
        channel
      ),
      (channel) =>
        Effect.map(
          connection.evaluate(
            unlistedRetries,
            [keys.retry(group, channel), keys.retries(group), keys.meta],
            ["mend", group, channel, keys.events]
          ),
          (reply) => reply === 1
        )
    )

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
      return yield* new RedisError({ reason: "Refused", command: "attach", message: `WRONGTYPE ${asked} is no stream` })
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

  const warnGone = (gone: ReadonlyArray<string>, isAll: boolean) =>
    Effect.logWarning(
      `rotif: group "${group}" found gone from Redis, and made again: ${gone.slice(0, mostNamed).join(", ")}` +
        (gone.length > mostNamed ? ` and ${gone.length - mostNamed} more` : "") +
        (isAll
          ? ". Most likely Redis has lost all its data (a restart without persistence, FLUSHALL): what was not handled is lost, with " +
            "delays, retries, dead letters and recurring messages"
          : ". What is still in a log comes again; what was in a log that is gone and was not handled is lost")
    )

  /** Makes the list of streams that of the registry. */
  const remember = (channels: ReadonlyArray<string>, retryChannels: ReadonlyArray<string>, isReset: boolean) => {
    const listed = [
      ...retryChannels.map((channel) => ({ key: keys.retry(group, channel), channel, isRetry: true })),
      ...channels.map((channel) => ({ key: keys.log(channel), channel, isRetry: false }))
    ].filter(({ key }) => !leftOut.has(key))
    for (const stream of listed) if (!streams.has(stream.key)) streams.set(stream.key, { ...stream, held: new Map() })
    all = listed.map(({ key }) => key)
    retries = listed.filter(({ isRetry }) => isRetry).map(({ key }) => key)
    const current = new Set(all)
    for (const [key, { held }] of streams) if (!current.has(key) && held.size === 0) streams.delete(key)
    if (isReset) readiness.reset()
    else readiness.keep(current)
  }

  const look = Effect.fnUntraced(function*(heal: boolean): Effect.fn.Return<void, RedisError> {
    let registry = yield* ask(heal ? "" : version)
    nextCheckAt = monotonic() + leaseMillis
    if (registry === undefined) return
    const now = registry.removals
    if (!isEstablished) removals = patterns.map((pattern, i) => [pattern, now[i] ?? ""])
    else if (removals.some(([, known], i) => now[i] !== "" && now[i] !== known)) return yield* failRemoved
    // Items that were there once and are not: only a fault or another program removes them.
    const gone: Array<string> = []
    const missing = yield* createMissing(registry.channels)
    for (const name of missing) if (streams.has(keys.log(name))) gone.push(`the channel "${name}"`)
    if (missing.size > 0) registry = (yield* ask("")) ?? registry
    const { registered } = registry
    const relisted = yield* relist(registry.retries)
    if (relisted.length > 0) gone.push("the list of its retry streams")
    if (isEstablished && registered.includes(0)) gone.push(itsRegistration)

    const channels = registry.channels.filter(matches)
    const retryChannels = [...registry.retries, ...relisted].filter(matches)
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
      const registering = yield* connection.evaluate(
        registerGroup,
        [keys.meta, keys.groups, keys.removed(group)],
        [JSON.stringify(removals), ...fields]
      )
      if (registering === -1) return yield* isEstablished ? failRemoved : look(heal)
    }
    isEstablished = true
    remember(channels, retryChannels, heal || attached.created.length > 0)
    version = registry.version
    registeredChannels = registry.channels.length
    registeredRetries = registry.retries.length
    if (gone.length > 0) yield* warnGone(gone, attached.created.length > 0 && gone.includes(itsRegistration))
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

  return {
    streams: streams as ReadonlyMap<string, GroupStream>,
    sync,

    /** The keys of the streams to read. */
    all: () => all,

    /** Those of them that are retry streams. */
    retries: () => retries,

    /** Whether a read may go on without a sync, now and later, until something is announced. */
    isSettled: () => !isStale && checkAgainAt === Infinity,

    /** Makes the next read sync first: something may have been added or removed. */
    markStale: () => {
      isStale = true
    },

    /** Syncs if something was announced, or if a key that was left out is to be checked again. */
    syncIfDue: Effect.suspend(() => monotonic() >= checkAgainAt ? sync(true) : isStale ? sync(false) : Effect.void),

    /** Syncs if something was announced, or if nothing was checked for a lease: a removal is not always announced. */
    checkIfDue: Effect.suspend(() => isStale || monotonic() >= nextCheckAt ? sync(false) : Effect.void),

    /** Set when the group was removed: it is not created again, and the member has ended. */
    removed: () => removed,

    awaitRemoval: Deferred.await(removal)
  }
}

export type Sources = ReturnType<typeof make>
