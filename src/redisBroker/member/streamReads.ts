/** How a member reads its streams: one of them, a few at once, or many at a measured pace. */
import { Effect } from "effect"
import type { BlockingConnection, Command, RedisError } from "../../Redis.ts"
import { charactersIn, Steps } from "../stepSize.ts"
import type { MemberContext } from "./context.ts"
import type { Gate } from "./gate.ts"
import type { Lease } from "./lease.ts"
import { take } from "./lease.ts"
import type { RawStreams, Readiness } from "./readiness.ts"
import { readGraceMillis } from "./readiness.ts"
import type { Sources } from "./sources.ts"
import { fewStreams } from "./sources.ts"
import type { Wakeup } from "./wakeup.ts"

/** Messages of the first read, whose size is not known yet, and at most this many characters of large messages in one read. */
const firstRead = 8
const charactersPerRead = 2 ** 22

/** The cost of one read of many streams for Redis, in ms (measured: 61 µs for 1, 120 for 100, 710 for 1,000). */
const readCostMillis = (streams: number) => 0.06 + 0.00065 * streams

/** Reads of many streams take at most this part of Redis's time, however often they find something. */
const readShare = 1 / 15

export const make = (
  { membership: { consumer, group, leaseMillis }, monotonic }: MemberContext,
  reader: BlockingConnection,
  sources: Pick<Sources, "all" | "streams">,
  readiness: Readiness,
  { idle, isWaking }: Pick<Wakeup, "idle" | "isWaking">,
  gate: Gate
) => {
  /**
   * Messages to ask for in one read, by the size of the last ones. A read gets as many as it asks for in one reply, and a long reply
   * delays all other commands.
   */
  const sizes = new Steps(Infinity, firstRead, charactersPerRead)
  let nextWideAt = 0

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
      const since = gate.known()
      return Effect.flatMap(reader.send(command, blockMillis + readGraceMillis), (reply) => {
        const found = (reply ?? []) as RawStreams
        // A single stream is always read.
        if (sources.all().length > 1 || blockMillis === 0) readiness.took(keys, each, found)
        const out: Array<Lease> = []
        for (const [key, entries] of found) {
          const stream = sources.streams.get(key)
          sizes.took(entries.length, charactersIn(entries))
          if (stream !== undefined) take(stream, entries, undefined, from, leaseMillis, out)
        }
        return gate.isOrdering() && out.length > 0 ? gate.admitRead(out, since) : Effect.succeed(out)
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

  /** Waits, without taking anything, until some stream may have messages; at most `blockMillis`, and not while the member is woken. */
  const lookAtAll = (blockMillis: number) =>
    Effect.andThen(
      paced,
      Effect.suspend(() => isWaking() ? Effect.void : wide(readiness.look(sources.all(), blockMillis)))
    )

  return { lookAtAll, readAll, readMany }
}
