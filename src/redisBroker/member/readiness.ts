/**
 * Which streams of a member may have something for it, and how the member waits for that without taking any message.
 *
 * A blocking `XREADGROUP` takes up to COUNT messages of each stream. Where there is less room than that, and where the room is not to be
 * kept for one reader, `XREAD` waits from the last position of the group. That position may be older than the true one, which costs a look
 * in vain. A group that was created again may have messages before it, which a recheck finds now and then.
 */
import { Effect } from "effect"
import type { BlockingConnection, Command } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import { chunked } from "../batches.ts"
import type { RawEntries } from "../replies.ts"
import { groupsIn } from "../replies.ts"
import type { MemberContext } from "./context.ts"

/** A read that has no answer this long after its block time is given up, and its connection replaced. */
export const readGraceMillis = 3_000

/** Streams whose groups are asked for in one pipeline. */
const streamsPerCall = 100

/** At most this many messages are taken from a busy stream among many, before it is the turn of the next one. */
const busyBatch = 8

/** Streams in which nothing has come, and which are read once in a lease in spite of their positions. */
const recheckedStreams = 16

export type RawStreams = ReadonlyArray<readonly [key: string, entries: RawEntries]>

export const make = (
  { connection, membership: { group, leaseMillis }, monotonic }: MemberContext,
  reader: BlockingConnection
) => {
  /** The streams that may have something, in the order of their turns, and the expected number of messages of each. */
  const ready = new Map<string, number>()
  /** The last known position of the group in each stream: the true one is there or later. */
  const positions = new Map<string, string>()
  /** The streams of which a look has found that they have something. */
  const told = new Set<string>()
  let rechecked = 0
  let recheckAt = monotonic() + leaseMillis

  const locate = Effect.fnUntraced(function*(keys: ReadonlyArray<string>) {
    for (const chunk of chunked(keys, streamsPerCall)) {
      const replies = yield* connection.pipeline(chunk.map((key): Command => ["xinfo", "groups", key]))
      for (const [i, key] of chunk.entries()) {
        const reply = replies[i]
        if (reply instanceof RedisError && !/no such key/.test(reply.message)) return yield* Effect.fail(reply)
        const place = groupsIn(reply).get(group)
        if (place === undefined) {
          return yield* new RedisError({ reason: "NoGroup", command: "xinfo", message: `NOGROUP of ${key}` })
        }
        positions.set(key, place.at)
        if (place.lag !== 0) ready.set(key, 1)
      }
    }
  })

  return {
    /** Whether some stream may have messages now. */
    isReady: () => ready.size > 0,

    /** Those of these streams that are not known to have anything. */
    quiet: (all: ReadonlyArray<string>): ReadonlyArray<string> => all.filter((key) => !ready.has(key)),

    /** The streams to read next, and the number of messages of each, to get at most `room`. */
    next: (room: number): { readonly streams: ReadonlyArray<string>; readonly each: number } => {
      const streams: Array<string> = []
      let expected = 0
      for (const [key, count] of ready) {
        expected += count
        if (streams.length > 0 && expected > room) break
        streams.push(key)
      }
      return { streams, each: Math.max(1, Math.floor(room / streams.length)) }
    },

    /** Learns from the reply to a read of `each` messages of these streams. Streams that have more go to the end of the line. */
    took: (streams: ReadonlyArray<string>, each: number, reply: RawStreams): void => {
      const given = new Map(reply)
      for (const key of streams) {
        const entries = given.get(key)
        const expected = ready.get(key) ?? 0
        ready.delete(key)
        if (entries !== undefined && entries.length > 0) {
          positions.set(key, entries.at(-1)![0])
          if (entries.length >= each) ready.set(key, Math.min(busyBatch, Math.max(each, 2 * expected)))
        } else if (told.has(key)) {
          // Another member was faster, and has perhaps taken more than was there.
          positions.delete(key)
        }
        told.delete(key)
      }
    },

    /** Waits until one of the quiet streams has something, at most `blockMillis`. It does not wait when another stream is ready. */
    look: Effect.fnUntraced(function*(all: ReadonlyArray<string>, blockMillis: number) {
      const unknown = all.filter((key) => !positions.has(key) && !ready.has(key))
      if (unknown.length > 0) yield* locate(unknown)
      const quiet = all.filter((key) => !ready.has(key))
      if (quiet.length === 0) return
      const millis = ready.size > 0 ? 0 : Math.ceil(blockMillis)
      const reply = (yield* reader.send([
        "xread",
        "COUNT",
        1,
        ...(millis > 0 ? ["BLOCK", millis] : []),
        "STREAMS",
        ...quiet,
        ...quiet.map((key) => positions.get(key)!)
      ], millis + readGraceMillis)) as RawStreams | null
      for (const [key] of reply ?? []) {
        ready.set(key, 1)
        told.add(key)
      }
      if (reply === null && monotonic() >= recheckAt) {
        recheckAt = monotonic() + leaseMillis
        for (let i = 0; i < Math.min(recheckedStreams, quiet.length); i++) {
          ready.set(quiet[rechecked++ % quiet.length]!, 1)
        }
      }
    }),

    /** Forgets all streams but these. */
    keep: (keys: ReadonlySet<string>): void => {
      for (const known of [ready, positions, told]) {
        for (const key of known.keys()) if (!keys.has(key)) known.delete(key)
      }
    },

    /** Forgets all positions: groups were created again. */
    reset: (): void => {
      ready.clear()
      positions.clear()
      told.clear()
    }
  }
}

export type Readiness = ReturnType<typeof make>
