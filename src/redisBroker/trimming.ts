/**
 * Trimming of one shard: streams in which a delivery was settled lately are trimmed in the next pass, all others in turn, slowly.
 *
 * So an idle namespace costs next to nothing, however many channels it has, and messages that a lost process has left behind do not stay
 * for ever.
 */
import { Clock, Effect } from "effect"
import type { Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import { monotonicMillis } from "../internal/times.ts"
import { uniqueName } from "../internal/uniqueName.ts"
import { Signal } from "../internal/wake.ts"
import * as Grace from "./grace.ts"
import type { Keys } from "./keys.ts"
import { sweepOnce } from "./scripts/upkeep/sweepOnce.ts"
import { trim as trimScript } from "./scripts/upkeep/trim.ts"
import type { Subject } from "./trimSubjects.ts"
import { subjectsOf } from "./trimSubjects.ts"

/** At most this many streams without recent settlements are trimmed in one pass; the next pass continues. */
const streamsPerPass = 200

/** At most this many streams are trimmed at a time: each holds up the server for some milliseconds. */
const streamsAtOnce = 4

/** After this long a pass ends, and the next one continues: the loop has to give its heartbeat. */
const passMillis = 5_000

/** Streams with messages that will reach their limit of age are visited this often. */
const agingMillis = 20_000

/** A consumer with no pending message is removed after this long without activity. */
const abandonedMillis = 600_000

/** One process visits the streams without recent settlements for this long. */
const turnMillis = 30_000

/** Exactly-once keys without a recorded time to live are kept this long. */
const longestMarksMillis = 86_400_000

export const make = Effect.fnUntraced(function*(
  keys: Keys,
  connection: Connection,
  graceMillis: number
) {
  const clock = yield* Clock.Clock
  const me = uniqueName()
  const touched = new Set<string>()
  const work = new Signal()
  /** Streams whose messages will reach their limit of age: their visit can wait longer. */
  const aging = new Set<string>()
  let agingAt = 0
  const millis = () => monotonicMillis(clock)
  const grace = yield* Grace.make(keys, connection, graceMillis, millis)

  let version: string | undefined
  let subjects = new Map<string, Subject>()
  /** Streams from which a change of groups or channels may allow to remove messages. */
  let unvisited = new Set<string>()
  let groupNames: ReadonlyArray<string> = []
  let cursor = 0
  /** Streams that refuse, each logged once. */
  const refusing = new Set<string>()

  /** Trims a stream, in as many steps as it needs. */
  const visit = (
    { channel, groups, isRetry, limits, stream }: Subject,
    before: number,
    isOver: () => boolean
  ): Effect.Effect<number, RedisError> =>
    Effect.flatMap(
      connection.evaluate(
        trimScript,
        // A retry stream belongs to one group, which always reads it from its beginning: it has no floor.
        [keys.meta, stream, ...(isRetry ? [] : groups.map(keys.floors))],
        [
          version ?? "0",
          isRetry ? 0 : grace.longestMillis(),
          limits.maxAgeMillis ?? 0,
          limits.minId ?? "",
          limits.maxLength ?? -1,
          abandonedMillis,
          channel,
          ...(isRetry ? [] : groups)
        ]
      ),
      (reply) => {
        const [some, again] = reply as readonly [number, number]
        const removed = before + Math.max(0, some)
        refusing.delete(stream)
        if (again === 2 && !isOver()) return visit({ channel, groups, isRetry, limits, stream }, removed, isOver)
        if (again === 3) aging.add(stream)
        else if (again > 0) touched.add(stream)
        return Effect.succeed(removed)
      }
    ).pipe(
      // A stream that refuses, because another program has overwritten it, does not hold up the others.
      Effect.catchIf(({ reason }) => reason === "Refused", (error) => {
        if (refusing.has(stream)) return Effect.succeed(before)
        refusing.add(stream)
        return Effect.as(
          Effect.logWarning(`rotif: ${stream} cannot be trimmed, and is left out: ${error.message}`),
          before
        )
      })
    )

  const trim = Effect.gen(function*() {
    const replies = yield* connection.pipeline([
      ["set", keys.janitor, me, "PX", turnMillis, "NX", "GET"],
      ["hget", keys.meta, "v"],
      ["zrange", keys.settings(""), 0, -1]
    ])
    const [turn, current, told] = replies as readonly [
      string | null | RedisError,
      string | null | RedisError,
      ReadonlyArray<string> | RedisError
    ]
    // Another program wrote the key. Nothing of Rotif is lost with it, and without a turn nobody would visit the streams.
    const isOthers = turn instanceof RedisError && turn.message.startsWith("WRONGTYPE ")
    // When memory is full nobody can take a turn. Then every process does the work, for it frees memory.
    const isFull = turn instanceof RedisError && turn.reason === "OutOfMemory"
    if (isOthers) yield* connection.send(["del", keys.janitor], { idempotent: true })
    else if (turn instanceof RedisError && !isFull) return yield* turn
    if (current instanceof RedisError) return yield* current
    yield* grace.hear(told)
    const owner = turn instanceof RedisError ? null : turn
    if ((current ?? "0") !== version) {
      const { groups, subjects: found } = yield* subjectsOf(keys, connection)
      subjects = found
      groupNames = groups
      for (const stream of refusing) if (!subjects.has(stream)) refusing.delete(stream)
      version = current ?? "0"
      unvisited = new Set(subjects.keys())
    }
    const pass = new Set<string>()
    // Each process visits the streams of its own settlements; the process whose turn it is visits the rest.
    for (const stream of touched) pass.add(stream)
    if (millis() >= agingAt) {
      agingAt = millis() + agingMillis
      for (const stream of aging) pass.add(stream)
      aging.clear()
    }
    if (owner === null || owner === me) {
      for (const stream of unvisited) if (pass.size < streamsPerPass) pass.add(stream)
      const all = [...subjects.keys()]
      if (all.length > 0) pass.add(all[cursor++ % all.length]!)
      if (groupNames.length > 0) {
        const group = groupNames[cursor % groupNames.length]!
        yield* connection.evaluate(sweepOnce, [keys.once(group), keys.olderonce(group)], [longestMarksMillis])
      }
    }
    for (const stream of pass) {
      touched.delete(stream)
      unvisited.delete(stream)
    }
    const known = [...pass].flatMap((stream) => subjects.get(stream) ?? [])
    const endsAt = millis() + passMillis
    const isOver = () => millis() > endsAt
    const removed = yield* Effect.forEach(known, (subject) => {
      if (!isOver()) return visit(subject, 0, isOver)
      touched.add(subject.stream)
      return Effect.succeed(0)
    }, { concurrency: streamsAtOnce }).pipe(
      Effect.tapError(() =>
        Effect.sync(() => {
          for (const stream of pass) touched.add(stream)
        })
      )
    )
    return removed.reduce((sum, some) => sum + some, 0)
  })

  const touch = (stream: string) => {
    touched.add(stream)
    work.wake()
  }

  return {
    /** Asks the next pass to visit a stream. */
    touch,
    /** Completes when a stream waits for a visit. */
    awaitWork: work.wait(() => touched.size > 0),
    trim
  }
})
