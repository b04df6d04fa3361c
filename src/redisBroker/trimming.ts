/**
 * What the janitor of one shard does on Redis Streams: it trims the streams on which something was settled lately, and goes
 * slowly through all others. So an idle namespace costs next to nothing, however many channels it has, and still nothing
 * stays for ever that a lost process has left behind.
 */
import { Clock, Effect, Result } from "effect"
import type { Limits } from "../Broker.ts"
import type { Command, Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import { reading } from "../internal/pattern.ts"
import { monotonicMillis } from "../internal/times.ts"
import { uniqueName } from "../internal/uniqueName.ts"
import { Signal } from "../internal/wake.ts"
import type { Keys } from "./keys.ts"
import { registrationsOf } from "./keys.ts"
import { shareSettings } from "./scripts/member/shareSettings.ts"
import { sweepOnce } from "./scripts/upkeep/sweepOnce.ts"
import { trim as trimScript } from "./scripts/upkeep/trim.ts"

/** Streams that nobody asked for, trimmed in one pass; the next pass goes on with the next ones. */
const streamsPerPass = 200

/** Streams trimmed at a time: each holds up the server for some milliseconds. */
const streamsAtOnce = 4

/** After this long a pass ends, and the next one goes on: the loop has to give a sign of life. */
const passMillis = 5_000

/** Limits of age are looked after this often. */
const agingMillis = 20_000

/** A consumer with nothing pending that has not been heard of for so long is removed. */
const abandonedMillis = 600_000

/** For so long one process goes through the streams that nobody asked for. */
const turnMillis = 30_000

/** Marks that do not say how long they are to be kept are kept so long. */
const longestMarksMillis = 86_400_000

/** A process tells so often what it is set to, sooner where it is not there any more, and that counts for so long. */
const agreeMillis = 60_000
const settingsMillis = 600_000

/** A stream, and what decides how much of it may go. */
interface Subject {
  readonly stream: string
  readonly channel: string
  readonly groups: ReadonlyArray<string>
  readonly limits: Limits
  readonly isRetry: boolean
}

/** What another program has written there that is no limit limits nothing. */
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
  /** Something was settled in this stream: it is looked at in the next pass. */
  readonly touch: (stream: string) => void
  /** Completes when something was settled that is still to be removed. */
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
  /** What is in these will be too old: that can wait longer. */
  const aging = new Set<string>()
  let agingAt = 0
  const millis = () => monotonicMillis(clock)
  let longestGraceMillis = graceMillis
  let agreeAt = -Infinity
  /** Of the processes that publish into this namespace one may need more time than this one to find what it has published. */
  const hear = (told: ReadonlyArray<string>) => {
    longestGraceMillis = told.reduce((longest, text) => Math.max(longest, Number(text) || 0), graceMillis)
  }
  const agreeOnGrace = Effect.gen(function*() {
    const reply = yield* connection.evaluate(shareSettings, [keys.settings("")], [graceMillis, settingsMillis], {
      idempotent: true
    })
    hear(reply as ReadonlyArray<string>)
    agreeAt = millis() + agreeMillis
  }).pipe(Effect.catchIf((error) => error.message.startsWith("WRONGTYPE "), () => Effect.void))

  yield* agreeOnGrace

  let version: string | undefined
  let subjects = new Map<string, Subject>()
  /** What a change of groups or channels may have set free. */
  let unvisited = new Set<string>()
  let groupNames: ReadonlyArray<string> = []
  let cursor = 0
  /** Told once. */
  const refusing = new Set<string>()

  const load = Effect.fnUntraced(function*() {
    const [limits, fields] = yield* connection.pipeline([["hgetall", keys.channels], ["hkeys", keys.groups]])
    for (const reply of [limits, fields]) if (reply instanceof RedisError) return yield* reply
    const groups = registrationsOf(fields).map(({ group, pattern }) => ({ group, matches: reading(pattern) }))
    const names = [...new Set(groups.map(({ group }) => group))]
    groupNames = names
    const retries = yield* connection.pipeline(names.map((group): Command => ["smembers", keys.retries(group)]))
    const out = new Map<string, Subject>()
    for (const [channel, text] of Object.entries(limits as Record<string, string>)) {
      const stream = keys.log(channel)
      out.set(stream, {
        stream,
        channel,
        groups: [...new Set(groups.filter(({ matches }) => matches(channel)).map(({ group }) => group))],
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

  /** One step; what is left is removed at once in further ones. */
  const visit = (
    { channel, groups, isRetry, limits, stream }: Subject,
    before: number,
    isOver: () => boolean
  ): Effect.Effect<number, RedisError> =>
    Effect.flatMap(
      connection.evaluate(
        trimScript,
        // A retry stream belongs to one group, which reads it from its beginning whatever happens: no floor to keep.
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
        ],
        { idempotent: true }
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
      // A stream that refuses, because another program has put something else there, holds up no other.
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
    // Another program's: nothing of ours is lost with it, and without a turn nobody would go through the streams.
    const isOthers = turn instanceof RedisError && turn.message.startsWith("WRONGTYPE ")
    // Without memory nobody can take a turn: then each does what it can, for this is what frees memory.
    const isFull = turn instanceof RedisError && turn.reason === "OutOfMemory"
    if (isOthers) yield* connection.send(["del", keys.janitor], { idempotent: true })
    else if (turn instanceof RedisError && !isFull) return yield* turn
    if (current instanceof RedisError) return yield* current
    if (!(told instanceof RedisError)) hear(told)
    // What cannot be read is told again, which fails by what is wrong.
    if (millis() >= agreeAt || told instanceof RedisError || !told.includes(String(graceMillis))) yield* agreeOnGrace
    const owner = turn instanceof RedisError ? null : turn
    if ((current ?? "0") !== version) {
      subjects = yield* load()
      for (const stream of refusing) if (!subjects.has(stream)) refusing.delete(stream)
      version = current ?? "0"
      unvisited = new Set(subjects.keys())
    }
    const pass = new Set<string>()
    // What this process has settled it knows best; the rest is for the one whose turn it is.
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
        yield* connection.evaluate(sweepOnce, [keys.once(group), keys.olderOnce(group)], [longestMarksMillis], {
          idempotent: true
        })
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
