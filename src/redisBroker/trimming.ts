/**
 * Trimming of one shard: streams in which a delivery was settled lately are trimmed in the next pass, all others in turn, slowly.
 *
 * So an idle namespace costs next to nothing, however many channels it has, and messages that a lost process has left behind do not stay
 * for ever.
 */
import { Clock, Effect, Result } from "effect"
import type { Limits } from "../Broker.ts"
import type { Command, Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import { monotonicMillis } from "../internal/times.ts"
import { uniqueName } from "../internal/uniqueName.ts"
import { Signal } from "../internal/wake.ts"
import type { Keys } from "./keys.ts"
import { registrationsOf } from "./keys.ts"
import { shareSettings } from "./scripts/member/shareSettings.ts"
import { sweepOnce } from "./scripts/upkeep/sweepOnce.ts"
import { trim as trimScript } from "./scripts/upkeep/trim.ts"

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

/** A process confirms its settings this often, sooner where they are gone, and they count for this long. */
const agreeMillis = 60_000
const settingsMillis = 600_000

/** A stream, and the groups and limits that decide what is removed from it. */
interface Subject {
  readonly stream: string
  readonly channel: string
  readonly groups: ReadonlyArray<string>
  readonly limits: Limits
  readonly isRetry: boolean
}

/** Reads the limits of a channel. A value that another program wrote, and that is no limit, counts as none. */
const limitsOf = (text: string): Limits => {
  const parsed = Result.getOrElse(Result.try((): unknown => text === "" ? {} : JSON.parse(text)), () => ({}))
  const { maxAgeMillis, maxLength, minId } = (parsed ?? {}) as { readonly [Name in keyof Limits]: unknown }
  const isCount = (value: unknown): value is number => typeof value === "number" && value >= 0 && value < 2 ** 53
  return {
    maxAgeMillis: isCount(maxAgeMillis) ? Math.ceil(maxAgeMillis) : undefined,
    maxLength: isCount(maxLength) ? Math.trunc(maxLength) : undefined,
    minId: typeof minId === "string" && /^\d{1,16}(-\d{1,20})?$/.test(minId) ? minId : undefined
  }
}

export interface RedisJanitor {
  /** Asks the next pass to visit a stream. */
  readonly touch: (stream: string) => void
  /** Completes when a stream waits for a visit. */
  readonly awaitWork: Effect.Effect<void>
  readonly trim: Effect.Effect<number, RedisError>
}

export const make = Effect.fnUntraced(function*(setup: {
  readonly keys: Keys
  readonly connection: Connection
  readonly graceMillis: number
}): Effect.fn.Return<RedisJanitor, RedisError> {
  const { connection, graceMillis, keys } = setup
  const clock = yield* Clock.Clock
  const me = uniqueName()
  const touched = new Set<string>()
  const work = new Signal()
  /** Streams whose messages will reach their limit of age: their visit can wait longer. */
  const aging = new Set<string>()
  let agingAt = 0
  const millis = () => monotonicMillis(clock)
  let longestGraceMillis = graceMillis
  let agreeAt = -Infinity
  /** The longest grace counts: another process of the namespace may need more time than this one to find its messages. */
  const hear = (told: ReadonlyArray<string>) => {
    longestGraceMillis = told.reduce((longest, text) => Math.max(longest, Number(text) || 0), graceMillis)
  }
  const agreeOnGrace = Effect.gen(function*() {
    const reply = yield* connection.evaluate(shareSettings, [keys.settings("")], [graceMillis, settingsMillis])
    hear(reply as ReadonlyArray<string>)
    agreeAt = millis() + agreeMillis
  }).pipe(Effect.catchIf((error) => error.message.startsWith("WRONGTYPE "), () => Effect.void))

  yield* agreeOnGrace

  let version: string | undefined
  let subjects = new Map<string, Subject>()
  /** Streams from which a change of groups or channels may allow to remove messages. */
  let unvisited = new Set<string>()
  let groupNames: ReadonlyArray<string> = []
  let cursor = 0
  /** Streams that refuse, each logged once. */
  const refusing = new Set<string>()

  const load = Effect.fnUntraced(function*() {
    const [limits, fields] = yield* connection.pipeline([["hgetall", keys.channels], ["hkeys", keys.groups]])
    for (const reply of [limits, fields]) if (reply instanceof RedisError) return yield* reply
    const groups = registrationsOf(fields)
    const names = [...new Set(groups.map(({ group }) => group))]
    groupNames = names
    const retries = yield* connection.pipeline(names.map((group): Command => ["smembers", keys.retries(group)]))
    const out = new Map<string, Subject>()
    for (const [channel, text] of Object.entries(limits as Record<string, string>)) {
      const stream = keys.log(channel)
      out.set(stream, {
        stream,
        channel,
        groups: [...new Set(groups.filter(({ reads }) => reads(channel)).map(({ group }) => group))],
        limits: limitsOf(text),
        isRetry: false
      })
    }
    for (const [i, group] of names.entries()) {
      const channels = retries[i]
      if (channels instanceof RedisError) return yield* channels
      for (const channel of channels as ReadonlyArray<string>) {
        const stream = keys.retry(group, channel)
        out.set(stream, { stream, channel, groups: [group], limits: {}, isRetry: true })
      }
    }
    return out
  })

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
          isRetry ? 0 : longestGraceMillis,
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
    if (!(told instanceof RedisError)) hear(told)
    // Settings that cannot be read are confirmed again, which fails with the reason.
    if (millis() >= agreeAt || told instanceof RedisError || !told.includes(String(graceMillis))) yield* agreeOnGrace
    const owner = turn instanceof RedisError ? null : turn
    if ((current ?? "0") !== version) {
      subjects = yield* load()
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

  return { touch, awaitWork: work.wait(() => touched.size > 0), trim }
})
