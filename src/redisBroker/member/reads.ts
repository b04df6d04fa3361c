/**
 * When and how a member reads: one stream, or many streams at a measured pace; and what it does about replies that were lost.
 */
import { Cause, Effect } from "effect"
import type { BlockingConnection, Command, RedisError } from "../../Redis.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { Claims } from "./claims.ts"
import { fewStreams } from "./claims.ts"
import type { MemberContext } from "./context.ts"
import type { Lease } from "./lease.ts"
import { forget, isAnyExpiring, setExpiry, take } from "./lease.ts"
import type { RawStreams, Readiness } from "./readiness.ts"
import { readGraceMillis } from "./readiness.ts"
import type { Sources } from "./sources.ts"
import type { Wakeup } from "./wakeup.ts"

/** Messages of the first read, whose size is not known yet, and at most this many characters of large messages in one read. */
const firstRead = 8
const charactersPerRead = 2 ** 22

/** The cost of one read of many streams for Redis, in ms (measured: 61 µs for 1, 120 for 100, 710 for 1,000). */
const readCostMillis = (streams: number) => 0.06 + 0.00065 * streams

/** Reads of many streams take at most this part of Redis's time, however often they find something. */
const readShare = 1 / 15

/** Whether a stream or its group is gone, or another program has put something else in its place. */
const isStreamGone = ({ message, reason }: RedisError) => reason === "NoGroup" || message.startsWith("WRONGTYPE ")

export const make = (
  { connection, membership: { consumer, group, leaseMillis }, monotonic }: MemberContext,
  reader: BlockingConnection,
  sources: Sources,
  readiness: Readiness,
  wakeup: Wakeup,
  recover: Claims["recover"]
) => {
  const { idle, isWaking } = wakeup
  /**
   * Messages to ask for in one read, by the size of the last ones. A read gets as many as it asks for in one reply, and a long reply
   * delays all other commands.
   */
  const sizes = new Steps(Infinity, firstRead, charactersPerRead)
  /** Whether replies may have been lost. */
  let isLost = false
  /** Whether only the retry streams are to be read, as in the beginning. */
  let onlyRetries = true
  let nextWideAt = 0

  /** Makes the next read recover deliveries that are pending for this member and not held. */
  const markLost = () => {
    isLost = true
  }

  /** Reads at most `each` messages of each of these streams. */
  const readStreams = (
    keys: ReadonlyArray<string>,
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
        ...keys,
        ...keys.map(() => ">")
      ]
      const from = monotonic()
      return Effect.map(reader.send(command, blockMillis + readGraceMillis), (reply) => {
        const found = (reply ?? []) as RawStreams
        // A single stream is always read.
        if (sources.all().length > 1 || blockMillis === 0) readiness.took(keys, each, found)
        const out: Array<Lease> = []
        for (const [key, entries] of found) {
          const stream = sources.streams.get(key)
          sizes.took(entries.length, charactersIn(entries))
          if (stream !== undefined) take(stream, entries, undefined, from, leaseMillis, out)
        }
        return out
      })
    })

  /** Reads streams at the same time, which share the room. */
  const readAll = (keys: ReadonlyArray<string>, room: number, blockMillis: number) =>
    readStreams(keys, Math.max(1, Math.floor(Math.min(room, sizes.size) / keys.length)), blockMillis)

  const isWideDue = () => monotonic() >= nextWideAt

  /** Runs a look at all streams, or a wait for all of them, and keeps the pace of the next one. */
  const wide = <A>(effect: Effect.Effect<A, RedisError>) =>
    Effect.ensuring(
      effect,
      Effect.sync(() => {
        nextWideAt = monotonic() + readCostMillis(sources.all().length) / readShare
      })
    )

  /** Waits until many streams may be looked at again. */
  const paced = Effect.suspend(() =>
    sources.all().length <= fewStreams || isWideDue() ? Effect.void : idle(nextWideAt - monotonic())
  )

  const readReady = (room: number) =>
    Effect.suspend(() => {
      const { each, streams } = readiness.next(Math.min(room, sizes.size))
      return streams.length === 0 ? Effect.succeed([]) : readStreams(streams, each, 0)
    })

  /**
   * Every stream that a blocking read names costs Redis something each time the read is woken. Many streams are looked at in intervals,
   * and in between those that are known to have more. If there are more streams than room, a look finds out first which of them have
   * something.
   */
  const readMany = Effect.fnUntraced(function*(room: number, blockMillis: number) {
    const all = sources.all()
    if (readiness.isReady()) {
      if (isWideDue()) {
        // Several messages from each of a few streams: the acknowledgements of a stream go in one command.
        const others = all.length <= fewStreams ? all : readiness.quiet(all)
        if (others.length <= room) {
          const out = others.length === 0 ? [] : yield* wide(readAll(others, room, 0))
          if (out.length > 0) return out
        } else yield* wide(readiness.look(all, 0))
      }
      const out = yield* readReady(room)
      if (out.length > 0) return out
    }
    if (blockMillis <= 0) return []
    yield* paced
    if (isWaking() || readiness.isReady()) return []
    if (sources.all().length <= room) return yield* wide(readAll(sources.all(), room, blockMillis))
    yield* wide(readiness.look(sources.all(), blockMillis))
    return yield* readReady(room)
  })

  /** Takes deliveries whose reply was lost. */
  const recoverLost = Effect.fnUntraced(function*(room: number) {
    // A new socket first: it ends the old one at the server, which then hands out nothing more to it.
    yield* reader.send(["ping"], readGraceMillis)
    isLost = false
    const { isMore, leases } = yield* Effect.onError(recover(room), () => Effect.sync(markLost))
    isLost = isLost || isMore
    return leases
  })

  /** Reads when there may be something to do first: in the beginning, after a failure, with several streams. */
  const readAnew = Effect.fnUntraced(function*(room: number, blockMillis: number) {
    if (isLost) {
      const leases = yield* recoverLost(room)
      if (leases.length > 0) return leases
    }
    yield* sources.syncIfDue
    if (onlyRetries) {
      // Deliveries that another member gave back when it left come before messages that it had not read yet. Where there are more retry
      // streams than room, they are the first in the line.
      const retries = sources.retries()
      const isRoomy = retries.length > 0 && retries.length <= room
      const out = isRoomy ? yield* readAll(retries, room, 0) : []
      if (out.length > 0) return out
      onlyRetries = false
    }
    if (isWaking()) return []
    const all = sources.all()
    if (all.length === 0) {
      // A pattern without any channel: there is no stream to block on, and a wake-up ends the wait.
      yield* idle(blockMillis)
      return []
    }
    return all.length === 1 ? yield* readAll(all, room, blockMillis) : yield* readMany(room, blockMillis)
  })

  const isSettled = () => !isLost && !onlyRetries && !isWaking() && sources.isSettled() && sources.all().length === 1

  const readOnce = (room: number, blockMillis: number): Effect.Effect<ReadonlyArray<Lease>, RedisError> =>
    isSettled() ? readAll(sources.all(), room, blockMillis) : readAnew(room, blockMillis)

  /** Waits without taking anything. */
  const readyOnce = Effect.fnUntraced(function*(blockMillis: number) {
    // Lost deliveries, and those that others have left behind, can only be taken by a read, which needs room.
    if (isLost || onlyRetries) return true
    yield* sources.syncIfDue
    if (readiness.isReady()) return true
    if (isWaking()) return false
    if (sources.all().length === 0) {
      yield* idle(blockMillis)
      return false
    }
    yield* paced
    if (!isWaking()) yield* wide(readiness.look(sources.all(), blockMillis))
    return readiness.isReady()
  })

  /** Sets how long the messages may still be handled. If that fails, it is as if they had not been handed out. */
  const dated = (leases: ReadonlyArray<Lease>): Effect.Effect<ReadonlyArray<Lease>, RedisError> =>
    isAnyExpiring(leases)
      ? setExpiry(connection, leases).pipe(
        Effect.as(leases),
        Effect.onError(() =>
          Effect.sync(() => {
            forget(leases)
            markLost()
          })
        )
      )
      : Effect.succeed(leases)

  /** Repeats `once` until it has something. A read that fails may have lost its reply. */
  const during = <A>(
    blockMillis: number,
    once: (millis: number) => Effect.Effect<A, RedisError>,
    isSomething: (value: A) => boolean
  ) =>
    Effect.suspend(() => {
      const generation = reader.generation()
      return wakeup.during(blockMillis, once, isSomething, (cause) => {
        const error = Cause.findErrorOption(cause)
        if (error._tag === "Some" && isStreamGone(error.value)) return sources.sync(true)
        // An interrupted read leaves a reply behind that is never taken; the next read recovers it.
        isLost = isLost || error._tag === "None" || error.value.reason === "ConnectionLost"
          || reader.generation() !== generation
        return Effect.void
      })
    })

  return {
    /** Waits for messages, at most `blockMillis`, and takes at most `count`. */
    read: (count: number, blockMillis: number) =>
      during(
        blockMillis,
        (millis) => Effect.flatMap(readOnce(count, millis), dated),
        (leases) => leases.length > 0
      ),

    /** Waits until there may be messages, at most `blockMillis`, and takes none. */
    awaitReady: (blockMillis: number) => during(blockMillis, readyOnce, (isReady) => isReady),

    markLost
  }
}
