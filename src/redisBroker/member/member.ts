/**
 * One consumer of one group in one shard on Redis Streams.
 *
 * It knows the streams of its group and reads them. How leases end is in `redisBroker/member/settlement.ts`, how expired and lost ones are
 * found in `redisBroker/member/claims.ts`.
 */
import { Cause, Clock, Deferred, Effect, Exit, Semaphore } from "effect"
import type { BrokerError, Delivery, Member, Membership } from "../../Broker.ts"
import { GroupRemoved } from "../../Broker.ts"
import type { BlockingConnection, Command, Connection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import * as Pattern from "../../internal/pattern.ts"
import { shortBlockMillis } from "../../redis/permissions.ts"
import { chunked } from "../batches.ts"
import type { Channels } from "../channels.ts"
import type { Keys } from "../keys.ts"
import { registrationField, registrationsOf } from "../keys.ts"
import type { Shards } from "../shards.ts"
import { unlistedRetries } from "../scripts/checks/unlistedRetries.ts"
import { attachGroup } from "../scripts/member/attachGroup.ts"
import { leaveGroup } from "../scripts/member/leaveGroup.ts"
import { listSources as sourcesScript } from "../scripts/member/listSources.ts"
import { registerGroup } from "../scripts/member/registerGroup.ts"
import { createChannel as channelScript } from "../scripts/publish/createChannel.ts"
import { charactersIn, Steps } from "../steps.ts"
import * as RedisClaims from "./claims.ts"
import { commit } from "./commit.ts"
import * as RedisAgreement from "./groupSettings.ts"
import type { Lease, Source } from "./lease.ts"
import { take } from "./lease.ts"
import * as RedisMarks from "./once.ts"
import * as RedisPresence from "./presence.ts"
import * as RedisReady from "./readiness.ts"
import * as RedisSettlement from "./settlement.ts"
import * as RedisTrials from "./trials.ts"

/** A read that has had no answer this long after its block time is given up and its connection replaced. */
const readGraceMillis = 3_000

/** Streams named in one script call. */
const streamsPerCall = 100

const itsRegistration = "its registration"

/** So much of what was gone is named in the log. */
const mostNamed = 5

/** So many messages are read at once where it is not known how large they are, and so many characters of large ones. */
const firstRead = 8
const charactersPerRead = 2 ** 22

/** What a read of so many streams costs Redis, in ms (measured: 61 µs for 1, 120 for 100, 710 for 1,000). */
const readCostMillis = (streams: number) => 0.06 + 0.00065 * streams

/** A read of many streams takes no more than this part of Redis's time, however often there is something. */
const readShare = 1 / 15

/** A stream or its group has gone, or something else is in its place. */
const isStreamGone = ({ message, reason }: RedisError) => reason === "NoGroup" || message.startsWith("WRONGTYPE ")

/** What is no stream is looked at again after this time. */
const leftOutMillis = 2_000

export interface Setup {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly reader: BlockingConnection
  readonly shards: Shards
  readonly channels: Channels
  /** The names and patterns the group reads in this shard. */
  readonly patterns: ReadonlyArray<string>
  /** The names among them: these channels are created when they do not exist. */
  readonly names: ReadonlyArray<string>
  readonly matches: (channel: string) => boolean
  /** Something was settled in this stream. */
  readonly onSettled: (stream: string) => void
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}

export interface RedisMember extends Member {
  /** Told of every event of the shard: something may have appeared that this member has to read. */
  readonly notify: (channel: string, group: string | undefined) => void
  /** Told that a group was removed, of some of what it reads at least. */
  readonly notifyRemoved: (group: string) => void
  /** Told that events may have been missed. */
  readonly notifyGap: () => void
  readonly close: Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(setup: Setup): Effect.fn.Return<RedisMember, BrokerError> {
  const { connection, fail, keys, matches, membership, names, onSettled, patterns, reader } = setup
  const { consumer, group, leaseMillis } = membership
  const clock = yield* Clock.Clock
  const runFork = Effect.runForkWith(yield* Effect.context())
  // It measures how old a lease is, never what time it is: a wall clock that is set back must not make a lease last longer.
  const monotonic = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

  const sources = new Map<string, Source>()
  let retryKeys: Array<string> = []
  let allKeys: Array<string> = []
  let version = ""
  // How much is registered, as of that version: less of it has been removed by somebody.
  let registeredChannels = 0
  let registeredRetries = 0
  let nextCheckAt = 0
  let established = false
  /** The removals of the group that are known, as they were when it was registered: a later one is the end of this member. */
  let known: ReadonlyArray<readonly [pattern: string, removal: string]> = []
  let removed: GroupRemoved | undefined
  const removal = Deferred.makeUnsafe<never, GroupRemoved>()
  let stale = true
  let lost = false
  // What one of them has been given and not yet recorded must not look lost to the other.
  const taking = yield* Semaphore.make(1)
  /** A read names a number of messages, and gets them at once, however large they are: that holds up everybody else. */
  const sizes = new Steps(Infinity, firstRead, charactersPerRead)
  let onlyRetries = true
  let nextWideAt = 0
  /** What is in the place of streams and is none, and when it is looked at again. */
  let leftOut: ReadonlySet<string> = new Set()
  let lookAgainAt = Infinity
  // The blocked read is to come back: to look at its streams again, or (`called`) to its caller.
  let waking = false
  let called = false
  let reading = false

  const marks = RedisMarks.make({ membership, keys, connection, fail })
  const presence = RedisPresence.make({ membership, keys, connection, patterns })
  const streams = RedisReady.make({ group, leaseMillis, connection, reader, graceMillis: readGraceMillis, monotonic })
  const agreement = RedisAgreement.make({ membership, keys, connection, monotonic })
  const claims = RedisClaims.make({
    membership,
    agreement,
    keys,
    connection,
    monotonic,
    sources,
    presence,
    onNoGroup: () => {
      stale = true
    }
  })

  const addSource = (key: string, channel: string, isRetry: boolean) => {
    if (!sources.has(key)) sources.set(key, { key, channel, isRetry, held: new Map() })
  }

  const evaluate = (...args: Parameters<Connection["evaluate"]>) => connection.evaluate(...args)

  const failOr = (operation: string) => (error: RedisError) => removed ?? fail(operation)(error)

  /** Somebody removed the group: it is not made again, and the member is of no use any more. */
  const sayRemoved = Effect.suspend(() => {
    removed = new GroupRemoved({ group, patterns })
    Deferred.doneUnsafe(removal, Effect.fail(removed))
    return Effect.fail(new RedisError({ reason: "Refused", command: "look", message: removed.message }))
  })

  /** Creates the group where it is missing: the streams where it was, and the keys that are no streams. `channels`: see the script. */
  const attachTo = (channels: ReadonlyArray<string>, streams: ReadonlyArray<string>, position: string) =>
    Effect.map(
      Effect.forEach(chunked(streams.map((key, i) => [key, channels[i]!] as const), streamsPerCall), (chunk) =>
        Effect.map(
          evaluate(
            attachGroup,
            [
              keys.floors(group),
              keys.counts,
              keys.settled,
              keys.removed(group),
              ...chunk.flatMap(([key, text]) => {
                if (text.startsWith("\n")) {
                  return [key, key, key]
                }
                const [channel = ""] = text.split("\n")
                return [key, keys.retry(group, channel), keys.bodies(group, channel)]
              })
            ],
            [
              group,
              position,
              JSON.stringify(known),
              ...chunk.map(([, channel]) =>
                channel
              )
            ],
            { idempotent: true }
          ),
          (reply) =>
            reply === null ?
              undefined :
              (reply as ReadonlyArray<ReadonlyArray<number>>).map((indexes) =>
                indexes.map((index) => chunk[index - 1]![0])
              )
        )),
      (replies) =>
        replies.every((reply) => reply !== undefined)
          ? { made: replies.flatMap(([made = []]) => made), wrong: replies.flatMap(([, wrong = []]) => wrong) }
          : undefined
    )

  const startPosition = (): string => {
    const start = membership.start
    switch (start._tag) {
      case "Earliest":
        return "settled"
      case "Latest":
        return "$"
      case "Position":
        return start.position
      case "Time":
        return start.atMillis <= 0 ? "0" : `${Math.ceil(start.atMillis) - 1}-18446744073709551615`
    }
  }

  /** Creates the group where its start option counts. */
  const attachAtStart = Effect.fnUntraced(function*(channels: ReadonlyArray<string>) {
    const registered = registrationsOf(yield* connection.send(["hkeys", keys.groups], { idempotent: true })).map(
      (one) => ({ ...one, reads: Pattern.reading(one.pattern) })
    )
    const others = registered.filter((one) => one.group !== group)
    // What another registration of the group reaches is kept for it: it is no new group there.
    const earlier = registered.filter((one) => one.group === group && !patterns.includes(one.pattern))
    const isKept = (name: string) => earlier.some(({ reads }) => reads(name))
    const kept = channels.filter(isKept)
    const fresh = channels.filter((name) => !isKept(name))
    const followed = yield* attachTo(kept, kept.map(keys.log), "0")
    const begun = yield* attachTo(
      fresh.map((name) => [name, ...others.filter(({ reads }) => reads(name)).map(({ group }) => group)].join("\n")),
      fresh.map(keys.log),
      startPosition()
    )
    return followed === undefined || begun === undefined
      ? undefined
      : { made: [...followed.made, ...begun.made], wrong: [...followed.wrong, ...begun.wrong] }
  })

  /**
   * Brings the list of streams up to date and creates the group where it is missing. `heal`: also where it was there before.
   * The group is attached before it is registered: a crash in between leaves it unregistered, and the next start repeats both.
   */
  const sync = (heal: boolean): Effect.Effect<void, RedisError> =>
    Effect.suspend(() => {
      // What is announced while this looks makes it look again.
      stale = false
      return Effect.onError(look(heal), () =>
        Effect.sync(() => {
          stale = true
        }))
    })

  /**
   * Another program has put something else in the place of a stream. A read that names it is refused as a whole: it is left out, told
   * once, and looked at again. A channel that was asked for by its name is not left out: what cannot be done at all is no success.
   */
  const leaveOut = Effect.fnUntraced(function*(wrong: ReadonlyArray<string>) {
    const named = new Set(names.map(keys.log))
    const asked = wrong.find((key) => named.has(key))
    if (asked !== undefined) {
      return yield* new RedisError({ reason: "Refused", command: "attach", message: `WRONGTYPE ${asked} is no stream` })
    }
    const fresh = wrong.filter((key) => !leftOut.has(key))
    leftOut = new Set(wrong)
    lookAgainAt = wrong.length > 0 ? monotonic() + leftOutMillis : Infinity
    if (fresh.length > 0) {
      yield* Effect.logError(
        `rotif: group "${group}" goes on without ${fresh.join(", ")}: not a stream (WRONGTYPE); remove the wrong key`
      )
    }
  })

  /** Lists the retry streams again that this member reads and nothing names any more, as long as they are there. */
  const relist = (listed: ReadonlyArray<string>) =>
    Effect.filter(
      [...sources.values()].filter(({ channel, isRetry }) => isRetry && !listed.includes(channel)).map(({ channel }) =>
        channel
      ),
      (channel) =>
        Effect.map(
          evaluate(
            unlistedRetries,
            [keys.retry(group, channel), keys.retries(group), keys.meta],
            ["mend", group, channel, keys.events],
            { idempotent: true }
          ),
          (reply) => reply === 1
        )
    )

  const sayGone = (gone: ReadonlyArray<string>, isAll: boolean) =>
    Effect.logWarning(
      `rotif: group "${group}" found gone from Redis, and made again: ${gone.slice(0, mostNamed).join(", ")}` +
        (gone.length > mostNamed ? ` and ${gone.length - mostNamed} more` : "") +
        (isAll
          ? ". Most likely Redis has lost all its data (a restart without persistence, FLUSHALL): what was not handled is lost, with " +
            "delays, retries, dead letters and recurring messages"
          : ". What is still in a log comes again; what was in a log that is gone and was not handled is lost")
    )

  const look = Effect.fnUntraced(function*(heal: boolean): Effect.fn.Return<void, RedisError> {
    const fields = patterns.map((pattern) => registrationField(group, pattern))
    const ask = (known: string) =>
      Effect.map(
        evaluate(
          sourcesScript,
          [keys.meta, keys.channels, keys.groups, keys.retries(group), keys.removed(group)],
          [known, registeredChannels, registeredRetries, ...fields],
          { idempotent: true }
        ),
        (reply) => reply as readonly [string, Array<string>?, Array<string>?, Array<number>?, Array<string>?]
      )
    let reply = yield* ask(heal ? "" : version)
    nextCheckAt = monotonic() + leaseMillis
    if (reply[1] === undefined) return
    const [, , , , removals = []] = reply
    if (!established) known = patterns.map((pattern, i) => [pattern, removals[i] ?? ""])
    else if (known.some(([, removal], i) => removals[i] !== "" && removals[i] !== removal)) return yield* sayRemoved
    // What was there once, and is not: nothing but a fault or a foreign hand removes it.
    const gone: Array<string> = []
    const listed = new Set(reply[1])
    const missing = [
      ...new Set([...names, ...[...sources.values()].map(({ channel }) => channel)].filter((name) => !listed.has(name)))
    ]
    if (missing.length > 0) {
      for (const name of missing) {
        if (sources.has(keys.log(name))) gone.push(`the channel "${name}"`)
        yield* evaluate(channelScript, [keys.meta, keys.channels, keys.log(name)], [name, "", keys.events], {
          idempotent: true
        })
      }
      reply = yield* ask("")
    }
    const [seen, channels = [], listedRetries = [], registered = []] = reply
    const retries = [...listedRetries, ...(yield* relist(listedRetries))]
    if (retries.length > listedRetries.length) gone.push("the list of its retry streams")
    if (established && registered.includes(0)) gone.push(itsRegistration)
    const matching = channels.filter(matches)
    const logs = matching.map(keys.log)
    const fresh = new Set<string>()
    if (!established && registered.includes(0)) {
      // The start option is for channels that were there before the group: those that no registered pattern of it reaches.
      const old = new Set(missing)
      const unregistered = patterns.filter((_, i) => registered[i] === 0)
      const isNew = registered.includes(1) ? new Set(unregistered) : undefined
      for (const channel of matching) {
        if (!old.has(channel) && (isNew === undefined || isNew.has(channel))) fresh.add(channel)
      }
    }
    const isKnown = (key: string) => !heal && sources.has(key)
    const attaching = (wanted: boolean) =>
      matching.filter((name) => fresh.has(name) === wanted && !isKnown(keys.log(name)))
    const starting = attaching(true)
    const following = attaching(false)
    const none = { made: [], wrong: [] }
    const waiting = retries.filter(matches)
    const retryStreams = waiting.map((channel) => keys.retry(group, channel))
    const missingRetries = retryStreams.filter((key) => !isKnown(key))
    const marked = missingRetries.map((key) => `\n${waiting[retryStreams.indexOf(key)]!}`)
    const attached = [
      starting.length > 0 ? yield* attachAtStart(starting) : none,
      following.length > 0 ? yield* attachTo(following, following.map(keys.log), "0") : none,
      missingRetries.length > 0 ? yield* attachTo(marked, missingRetries, "0") : none
    ]
    // Removed since it was looked: who only begins looks again, and makes a new group.
    if (attached.includes(undefined)) return yield* established ? sayRemoved : look(heal)
    const made = attached.flatMap((one) => one?.made ?? [])
    yield* leaveOut(attached.flatMap((one) => one?.wrong ?? []))
    for (const key of made) {
      const source = sources.get(key)
      if (source !== undefined) {
        gone.push(`its place in the ${source.isRetry ? "retry stream" : "log"} of "${source.channel}"`)
      }
    }
    // A registration that is gone went with a flush of the namespace.
    if (!established || heal || registered.includes(0)) {
      const registering = yield* evaluate(
        registerGroup,
        [keys.meta, keys.groups, keys.removed(group)],
        [JSON.stringify(known), ...fields],
        { idempotent: true }
      )
      if (registering === -1) return yield* established ? sayRemoved : look(heal)
    }
    established = true
    for (const [i, key] of retryStreams.entries()) if (!leftOut.has(key)) addSource(key, waiting[i]!, true)
    for (const [i, key] of logs.entries()) if (!leftOut.has(key)) addSource(key, matching[i]!, false)
    const current = new Set([...retryStreams, ...logs].filter((key) => !leftOut.has(key)))
    // A stream that is gone from the registry stays known while something of it is held.
    for (const [key, source] of sources) {
      if (!current.has(key) && source.held.size === 0) sources.delete(key)
    }
    if (heal || made.length > 0) streams.reset()
    else streams.keep(current)
    retryKeys = retryStreams.filter((key) => !leftOut.has(key))
    allKeys = [...current]
    version = seen
    registeredChannels = channels.length
    registeredRetries = listedRetries.length
    if (gone.length > 0) yield* sayGone(gone, made.length > 0 && gone.includes(itsRegistration))
  })

  /** Reads so many messages of each of these streams, at most. */
  const readStreams = (
    wanted: ReadonlyArray<string>,
    each: number,
    blockMillis: number
  ): Effect.Effect<ReadonlyArray<Lease>, RedisError> =>
    Effect.suspend(() => {
      const command: Command = [
        "xreadgroup",
        "GROUP",
        group,
        consumer,
        "COUNT",
        each,
        ...(blockMillis > 0 ? ["BLOCK", Math.ceil(blockMillis)] : []),
        "STREAMS",
        ...wanted,
        ...wanted.map(() => ">")
      ]
      const from = monotonic()
      return Effect.map(reader.send(command, blockMillis + readGraceMillis), (reply) => {
        const found = (reply ?? []) as RedisReady.RawStreams
        // One alone is always asked.
        if (allKeys.length > 1 || blockMillis === 0) streams.took(wanted, each, found)
        const out: Array<Lease> = []
        for (const [key, entries] of found) {
          const source = sources.get(key)
          sizes.took(entries.length, charactersIn(entries))
          if (source !== undefined) take(source, entries, undefined, from, leaseMillis, out)
        }
        return out
      })
    })

  /** Streams that are read at the same time share the room. */
  const readAll = (wanted: ReadonlyArray<string>, room: number, blockMillis: number) =>
    readStreams(wanted, Math.max(1, Math.floor(Math.min(room, sizes.size) / wanted.length)), blockMillis)

  const isWideDue = () => monotonic() >= nextWideAt

  /** Looks at all streams, or waits for one of them. */
  const wide = <A>(effect: Effect.Effect<A, RedisError>) =>
    Effect.ensuring(
      effect,
      Effect.sync(() => {
        nextWideAt = monotonic() + readCostMillis(allKeys.length) / readShare
      })
    )

  /** Waits until many streams may be looked at again. */
  const paced = Effect.suspend(() =>
    allKeys.length <= RedisClaims.fewStreams || isWideDue() ? Effect.void : idle(nextWideAt - monotonic())
  )

  const readReady = (room: number) =>
    Effect.suspend(() => {
      const { each, streams: wanted } = streams.next(Math.min(room, sizes.size))
      return wanted.length === 0 ? Effect.succeed([]) : readStreams(wanted, each, 0)
    })

  /**
   * Every stream that a blocking read names costs Redis something each time the read is woken. Many streams are looked at at intervals, and
   * those that are known to have more in between. More streams than there is room are not read before it is known which of them have something.
   */
  const readMany = Effect.fnUntraced(function*(room: number, blockMillis: number) {
    if (streams.isReady()) {
      if (isWideDue()) {
        // Several from each of a few: the acknowledgements of a stream go in one command.
        const others = allKeys.length <= RedisClaims.fewStreams ? allKeys : streams.quiet(allKeys)
        if (others.length <= room) {
          const out = others.length === 0 ? [] : yield* wide(readAll(others, room, 0))
          if (out.length > 0) return out
        } else yield* wide(streams.look(allKeys, 0))
      }
      const out = yield* readReady(room)
      if (out.length > 0) return out
    }
    if (blockMillis <= 0) return []
    yield* paced
    if (waking || streams.isReady()) return []
    if (allKeys.length <= room) return yield* wide(readAll(allKeys, room, blockMillis))
    yield* wide(streams.look(allKeys, blockMillis))
    return yield* readReady(room)
  })

  /** All there is to do but in the beginning, after a failure, and for those who read several streams. */
  const isSettled = () => !lost && !stale && !onlyRetries && !waking && lookAgainAt === Infinity && allKeys.length === 1

  const readOnce = (room: number, blockMillis: number): Effect.Effect<ReadonlyArray<Lease>, RedisError> =>
    isSettled() ? readAll(allKeys, room, blockMillis) : readAnew(room, blockMillis)

  const syncIfDue = Effect.suspend(() => monotonic() >= lookAgainAt ? sync(true) : stale ? sync(false) : Effect.void)

  const readAnew = Effect.fnUntraced(function*(room: number, blockMillis: number) {
    if (lost) {
      // A new socket first: it ends the old one at the server, so that nothing more is handed out to it.
      yield* reader.send(["ping"], readGraceMillis)
      lost = false
      const { isMore, leases } = yield* Effect.onError(
        taking.withPermit(claims.recover(room)),
        () =>
          Effect.sync(() => {
            lost = true
          })
      )
      lost = lost || isMore
      if (leases.length > 0) return leases
    }
    yield* syncIfDue
    if (onlyRetries) {
      // What another member gave back when it left comes before what it had not read yet. Where there are more than there is room, they are
      // the first in the line.
      const isRoomy = retryKeys.length > 0 && retryKeys.length <= room
      const out = isRoomy ? yield* readAll(retryKeys, room, 0) : []
      if (out.length > 0) return out
      onlyRetries = false
    }
    if (waking) return []
    if (allKeys.length === 0) {
      // A pattern without any channel: there is nothing to block on, `wake` and `notify` end the wait.
      yield* idle(blockMillis)
      return []
    }
    return allKeys.length === 1 ? yield* readAll(allKeys, room, blockMillis) : yield* readMany(room, blockMillis)
  })

  /** Waits without taking anything. */
  const readyOnce = Effect.fnUntraced(function*(blockMillis: number) {
    // To take what was lost, and what others have left behind, needs room.
    if (lost || onlyRetries) return true
    yield* syncIfDue
    if (streams.isReady()) return true
    if (waking) return false
    if (allKeys.length === 0) {
      yield* idle(blockMillis)
      return false
    }
    yield* paced
    if (!waking) yield* wide(streams.look(allKeys, blockMillis))
    return streams.isReady()
  })

  let endIdle: (() => void) | undefined
  const idle = (millis: number) =>
    Effect.raceFirst(
      Effect.sleep(millis),
      Effect.callback<void>((resume) => {
        endIdle = () => resume(Effect.void)
      })
    )

  /** Tells how long those may be handled that expire. What cannot be told is as if it had not been handed out. */
  const dated = (leases: ReadonlyArray<Lease>): Effect.Effect<ReadonlyArray<Lease>, RedisError> =>
    leases.some((lease) => lease.expiresAtMillis !== undefined)
      ? connection.send(["time"], { idempotent: true }).pipe(
        Effect.map((reply) => {
          const [seconds, micros] = reply as readonly [string, string]
          const now = Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
          for (const lease of leases) {
            if (lease.expiresAtMillis !== undefined) lease.expiresInMillis = lease.expiresAtMillis - now
          }
          return leases
        }),
        Effect.onError(() =>
          Effect.sync(() => {
            for (const lease of leases) lease.source.held.delete(lease.position)
            lost = true
          })
        )
      )
      : Effect.succeed(leases)

  /** Repeats `once` until it has something, its caller wakes it, or the time is over. */
  const during = <A>(
    blockMillis: number,
    once: (millis: number) => Effect.Effect<A, RedisError>,
    isSomething: (value: A) => boolean
  ): Effect.Effect<A, RedisError> =>
    Effect.suspend(() => {
      waking = false
      called = false
      reading = true
      const generation = reader.generation()
      const untilMillis = monotonic() + blockMillis
      const readFor = (millis: number): Effect.Effect<A, RedisError> =>
        // Nobody may wake a read that is blocked: it comes back soon by itself.
        Effect.flatMap(once(reader.mayUnblock() ? millis : Math.min(millis, shortBlockMillis)), (value) => {
          const left = untilMillis - monotonic()
          if (isSomething(value) || called || left <= 0) return Effect.succeed(value)
          // It only had to look at its streams again: the rest of its time is not over.
          waking = false
          return readFor(left)
        })
      return Effect.onExit(readFor(blockMillis), (exit) => {
        reading = false
        if (Exit.isSuccess(exit)) return Effect.void
        const error = Cause.findErrorOption(exit.cause)
        if (error._tag === "Some" && isStreamGone(error.value)) return sync(true)
        // An interrupted read leaves an answer behind that nobody takes; the next one recovers it.
        lost = lost || error._tag === "None" || error.value.reason === "ConnectionLost"
          || reader.generation() !== generation
        return Effect.void
      })
    })

  const read = (
    count: number,
    blockMillis: number
  ): Effect.Effect<ReadonlyArray<Delivery>, BrokerError | GroupRemoved> =>
    Effect.mapError(
      during(
        blockMillis,
        (millis) => Effect.flatMap(readOnce(count, millis), dated),
        (leases) => leases.length > 0
      ),
      failOr("read")
    )

  const nudge = Effect.suspend(() => {
    if (!reading) return Effect.void
    waking = true
    endIdle?.()
    // The read may be on its way and not blocked yet when the first one arrives.
    let pause = 1
    return Effect.whileLoop({
      while: () => reading && waking,
      body: () =>
        Effect.andThen(reader.unblock, Effect.suspend(() => reading && waking ? Effect.sleep(pause) : Effect.void)),
      step: () => {
        pause = Math.min(pause * 2, 100)
      }
    })
  })

  const wake = Effect.suspend(() => {
    called = reading
    return nudge
  })

  // Before the first read: whoever falls silent later has been heard of.
  yield* Effect.mapError(Effect.andThen(sync(false), presence.sayAlive(leaseMillis)), fail("join"))
  const settlement = RedisSettlement.make({ membership, keys, connection, monotonic, marks, onSettled, fail })

  return {
    read,
    awaitReady: (blockMillis) => Effect.mapError(during(blockMillis, readyOnce, (isReady) => isReady), failOr("read")),
    wake,
    shared: (names) => Effect.mapError(presence.shared(names), fail("shared")),
    ...settlement,
    // A member that is full claims nothing: how long its lease is has to be known all the same.
    renew: (deliveries) =>
      Effect.andThen(Effect.mapError(agreement.refresh, fail("renew")), settlement.renew(deliveries)),
    ...RedisTrials.make({ membership, keys, connection, monotonic, fail }),
    begin: marks.begin,
    commit: (commits) =>
      Effect.mapError(
        commit({ shards: setup.shards, channels: setup.channels, keys, group, marks, onSettled }, commits),
        fail("commit")
      ),
    claim: (count) =>
      // Nobody announces that something was removed: now and then it is looked whether all is there.
      Effect.suspend(() => stale || monotonic() >= nextCheckAt ? sync(false) : Effect.void).pipe(
        Effect.andThen(taking.withPermit(Effect.tap(claims.claim(count), ({ deliveries }) => dated(deliveries)))),
        // What a claim that failed has taken is pending for this member and held by nobody: the reader looks for it.
        Effect.tapError(() =>
          Effect.sync(() => {
            lost = true
            runFork(nudge)
          })
        ),
        Effect.mapError(failOr("claim"))
      ),
    // A claim always says when to look again.
    awaitLease: Effect.never,
    awaitRemoval: Deferred.await(removal),
    awaitJoin: Effect.never,
    notify: (channel, forGroup) => {
      if ((forGroup !== undefined && forGroup !== group) || !matches(channel)) return
      stale = true
      runFork(nudge)
    },
    notifyRemoved: (name) => {
      // Also while the reader rests.
      if (name === group) runFork(Effect.andThen(Effect.ignore(sync(false)), nudge))
    },
    notifyGap: () => {
      stale = true
      runFork(nudge)
    },
    close: Effect.gen(function*() {
      let left = 0
      for (const chunk of chunked(allKeys, streamsPerCall)) {
        left += (yield* evaluate(leaveGroup, chunk, [group, consumer], { idempotent: true })) as number
      }
      // One that leaves something behind falls silent, and is looked for.
      if (left === allKeys.length) yield* presence.leave
    }).pipe(
      Effect.tapError((error) => Effect.logDebug(`rotif: the consumer ${consumer} was not removed: ${error.message}`)),
      Effect.ignore
    )
  }
})
