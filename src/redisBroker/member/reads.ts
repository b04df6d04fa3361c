/** The reads of a member: what it does before it reads its streams, and after a read that has failed. */
import { Cause, Effect } from "effect"
import type { BlockingConnection, RedisError } from "../../Redis.ts"
import type { MemberContext } from "./context.ts"
import type { Gate } from "./gate.ts"
import type { Lease } from "./lease.ts"
import { forget, isAnyExpiring, setExpiry } from "./lease.ts"
import type { Recover } from "./lostReplies.ts"
import type { Readiness } from "./readiness.ts"
import { readGraceMillis } from "./readiness.ts"
import type { Sources } from "./sources.ts"
import * as StreamReads from "./streamReads.ts"
import type { Wakeup } from "./wakeup.ts"

/** Whether a stream or its group is gone, or another program has put something else in its place. */
const isStreamGone = ({ message, reason }: RedisError) => reason === "NoGroup" || message.startsWith("WRONGTYPE ")

export const make = (
  context: MemberContext,
  reader: BlockingConnection,
  sources: Sources,
  readiness: Readiness,
  wakeup: Wakeup,
  recover: Recover,
  gate: Gate
) => {
  const { connection } = context
  const { idle, isWaking } = wakeup
  const { lookAtAll, readAll, readMany } = StreamReads.make(context, reader, sources, readiness, wakeup, gate)
  /** Whether replies may have been lost. */
  let isLost = false
  /** Whether only the retry streams are to be read, as in the beginning. */
  let onlyRetries = true

  /** Makes the next read recover deliveries that are pending for this member and not held. */
  const markLost = () => {
    isLost = true
  }

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
    yield* lookAtAll(blockMillis)
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
