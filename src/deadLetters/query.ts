/** Queries: the dead letters of all shards in one order, that of their death. */
import type { DateTime } from "effect"
import { Effect, Result } from "effect"
import type { Broker, BrokerError, Failure } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import type { Filter } from "../DeadLetter.ts"
import { InvalidDeadLetterOption } from "../DeadLetter.ts"
import type { Letter, LetterStore } from "../broker/deadLetters.ts"
import { isPosition, lastOf } from "../broker/position.ts"
import * as Given from "../internal/optionChecks.ts"
import { compile, globProblem } from "../internal/pattern.ts"
import { calm, shown } from "../internal/describe.ts"
import { read } from "./options.ts"

/** A letter and its shard. */
export interface Found {
  readonly shard: number
  readonly letter: Letter
}

/** A place in the order of death: a letter id, then the shard for letters with the same id. */
export interface Place {
  readonly shard: number
  readonly letterId: string
}

export const parsePlace = (text: string): Place | undefined => {
  const [, shard, letterId = ""] = /^(\d{1,4}):(.*)$/s.exec(text) ?? []
  return isPosition(letterId) ? { shard: Number(shard), letterId } : undefined
}

/** The place that the id of a letter names; `undefined` for a text that no letter can have as its id. */
export const placeOf = (
  { shards }: Broker["Service"],
  letterId: string
): Effect.Effect<Place | undefined, InvalidDeadLetterOption> =>
  Effect.map(read(Given.name("letterId", letterId, 512)), (text) => {
    const place = parsePlace(text)
    return place === undefined || place.shard >= shards ? undefined : place
  })

const partsOf = (letterId: string): readonly [millis: bigint, sequence: bigint] => {
  const dash = letterId.indexOf("-")
  return [BigInt(letterId.slice(0, dash)), BigInt(letterId.slice(dash + 1))]
}

const compareIds = (a: string, b: string): number => {
  const [aMillis, aSequence] = partsOf(a)
  const [bMillis, bSequence] = partsOf(b)
  if (aMillis !== bMillis) return aMillis < bMillis ? -1 : 1
  return aSequence === bSequence ? 0 : aSequence < bSequence ? -1 : 1
}

const compare = (a: Place, b: Place): number => compareIds(a.letterId, b.letterId) || a.shard - b.shard

const lastSequence = 18_446_744_073_709_551_615n

/** The id just before or after another one, so that an exclusive bound includes it. */
const neighbour = (letterId: string, step: -1n | 1n): string => {
  const [millis, sequence] = partsOf(letterId)
  if (step < 0n) {
    if (sequence > 0n) return `${millis}-${sequence - 1n}`
    return millis > 0n ? `${millis - 1n}-${lastSequence}` : "0-0"
  }
  return sequence < lastSequence ? `${millis}-${sequence + 1n}` : `${millis + 1n}-0`
}

const later = (a: string | undefined, b: string | undefined) =>
  a === undefined ? b : b === undefined || compareIds(a, b) >= 0 ? a : b
const earlier = (a: string | undefined, b: string | undefined) =>
  a === undefined ? b : b === undefined || compareIds(a, b) <= 0 ? a : b

/** A filter as it is evaluated: the shards to read, exclusive bounds, and a predicate for the rest. */
export interface Query {
  readonly shards: ReadonlyArray<number>
  readonly after: string | undefined
  readonly before: string | undefined
  readonly matches: (subject: Subject) => boolean
}

/** The parts of a letter that the predicate of a filter reads. */
export interface Subject extends Pick<Letter, "group" | "channel"> {
  readonly failure: Pick<Failure, "reason" | "errorTag">
  readonly malformed: string | undefined
}

const time = (
  option: string,
  value: DateTime.DateTime.Input | undefined
): Effect.Effect<number | undefined, InvalidDeadLetterOption> => {
  if (value === undefined) return Effect.undefined
  return Effect.map(read(Given.time(option, value)), (millis) => Math.max(0, Math.ceil(millis)))
}

const channelMatcher = (channel: Filter["channel"]): (name: string) => boolean => {
  if (channel === undefined) return () => true
  if (typeof channel === "string") return compile(channel)
  const selector = Channel.selector(channel)
  if (selector._tag === "Pattern") return compile(selector.pattern)
  return (name) => selector.names.includes(name)
}

/** The shards that can have letters of a channel. */
export const shardsOf = (broker: Broker["Service"], channel: Filter["channel"]): ReadonlyArray<number> =>
  broker.shardsOf(
    channel === undefined
      ? { _tag: "Pattern", pattern: "**" }
      : typeof channel !== "string"
      ? Channel.selector(channel)
      : channel.includes("*")
      ? { _tag: "Pattern", pattern: channel }
      : { _tag: "Channels", names: [channel] }
  )

const parts: ReadonlySet<string> = new Set<keyof Filter>(["channel", "group", "errorTag", "reason", "from", "to"])

const reasonNames: ReadonlySet<unknown> = new Set<Failure["reason"]>([
  "exhausted",
  "term",
  "decode",
  "crashed",
  "expired"
])

/** Finds a part of a filter that would match nothing, or letters that it was not meant for. */
const partProblem = ({ channel, errorTag, group, reason }: Filter): Result.Result<unknown, Given.Problem> => {
  if (typeof channel === "string") {
    const problem = globProblem(channel)
    if (problem !== undefined) return Result.fail({ option: "channel", message: `the channel of a filter: ${problem}` })
  } else if (channel !== undefined && !Channel.isSource(channel)) {
    return Given.refuse("channel", "the name of a channel, a pattern, or what can be subscribed to", channel)
  }
  for (const [name, value] of [["group", group], ["errorTag", errorTag]] as const) {
    if (value !== undefined && typeof value !== "string") return Given.refuse(name, "a string", value)
  }
  const reasons: unknown = reason === undefined ? [] : typeof reason === "string" ? [reason] : reason
  return Array.isArray(reasons) && reasons.every((one) => reasonNames.has(one))
    ? Result.succeed(undefined)
    : Given.refuse("reason", `one of ${[...reasonNames].join(", ")}, or a list of them`, reason)
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Finds the problem with a filter. A part with a wrong name would be ignored: the filter would match letters that it was not meant for. */
export const filterProblem = (filter: unknown): string | undefined => {
  const found = Given.record("the filter", filter)
  // A Promise, a Map or a Date shows no part, as if it were {}.
  if (Result.isFailure(found) || (Object.keys(found.success).length === 0 && !isPlain(found.success))) {
    calm(filter)
    return `the filter must be an object, it is ${shown(filter)}; {} means all dead letters`
  }
  const unknown = Object.entries(found.success).find(([name, value]) => !parts.has(name) && value !== undefined)
  return unknown === undefined
    ? undefined
    : `a filter has no ${JSON.stringify(unknown[0])}: it has ${[...parts].join(", ")}`
}

/** Reads a filter; no filter matches all letters. */
export const make = Effect.fnUntraced(function*(
  broker: Broker["Service"],
  filter: Filter | undefined
): Effect.fn.Return<Query, InvalidDeadLetterOption> {
  const problem = filter === undefined ? undefined : filterProblem(filter)
  if (problem !== undefined) return yield* new InvalidDeadLetterOption({ option: "filter", message: problem })
  yield* read(partProblem(filter ?? {}))
  const { channel, errorTag, group, reason } = filter ?? {}
  const from = yield* time("from", filter?.from)
  const to = yield* time("to", filter?.to)
  const isChannel = channelMatcher(channel)
  const reasons = reason === undefined ? undefined : new Set<unknown>(typeof reason === "string" ? [reason] : reason)
  const isPicky = channel !== undefined || group !== undefined || errorTag !== undefined || reasons !== undefined
  return {
    shards: shardsOf(broker, channel),
    after: from === undefined || from === 0 ? undefined : lastOf(from - 1),
    before: to === undefined ? undefined : `${to}-0`,
    matches: (letter) =>
      !isPicky || (letter.malformed === undefined && isChannel(letter.channel)
        && (group === undefined || letter.group === group)
        && (errorTag === undefined || letter.failure.errorTag === errorTag)
        && (reasons === undefined || reasons.has(letter.failure.reason)))
  }
})

export interface ScanOptions {
  readonly order: "newest" | "oldest"
  /** Continues after this place. */
  readonly from?: Place | undefined
  /** The last letter of each shard to read; a shard that is not named is not read. */
  readonly upTo?: ReadonlyMap<number, string> | undefined
  /** About how many letters will be wanted. */
  readonly wanted: number
}

/** The reading of one shard: the letters read ahead, and where the next read begins. */
interface ShardCursor {
  readonly shard: number
  buffer: ReadonlyArray<Letter>
  next: number
  after: string | undefined
  before: string | undefined
  ended: boolean
}

/** Reads the letters that match, one after another; `undefined` when there are no more. Letters added or removed meanwhile affect no other letter. */
export const scan = (
  store: LetterStore,
  query: Query,
  options: ScanOptions
): Effect.Effect<Found | undefined, BrokerError> => {
  const { from, order, upTo, wanted } = options
  const isOldest = order === "oldest"
  const cursors = query.shards.filter((shard) => upTo === undefined || upTo.has(shard)).map((shard): ShardCursor => {
    let { after, before } = query
    if (from !== undefined) {
      // Letters with the same id are in the order of their shards.
      if (isOldest) after = later(after, shard > from.shard ? neighbour(from.letterId, -1n) : from.letterId)
      else before = earlier(before, shard < from.shard ? neighbour(from.letterId, 1n) : from.letterId)
    }
    const last = upTo?.get(shard)
    if (last !== undefined) before = earlier(before, neighbour(last, 1n))
    return { shard, buffer: [], next: 0, after, before, ended: false }
  })
  const chunk = Math.min(1000, Math.max(10, Math.ceil((2 * wanted) / Math.max(1, cursors.length))))

  const fill = Effect.fnUntraced(function*(cursor: ShardCursor) {
    const { after, before, shard } = cursor
    const letters = yield* store.list(shard, { order, limit: chunk, after, before })
    const last = letters.at(-1)?.letterId
    if (isOldest) cursor.after = last ?? after
    else cursor.before = last ?? before
    cursor.ended = letters.length < chunk
    cursor.buffer = letters.filter(query.matches)
    cursor.next = 0
  })

  return Effect.gen(function*() {
    for (let filling = true; filling;) {
      const empty = cursors.filter((cursor) => cursor.next >= cursor.buffer.length && !cursor.ended)
      filling = empty.length > 0
      yield* Effect.forEach(empty, fill, { concurrency: 8, discard: true })
    }
    let best: ShardCursor | undefined
    let place: Place | undefined
    for (const cursor of cursors) {
      const letter = cursor.buffer[cursor.next]
      if (letter === undefined) continue
      const candidate = { shard: cursor.shard, letterId: letter.letterId }
      if (place === undefined || (compare(candidate, place) < 0) === isOldest) {
        best = cursor
        place = candidate
      }
    }
    return best === undefined ? undefined : { shard: best.shard, letter: best.buffer[best.next++]! }
  })
}

/** Finds the newest letter of each shard that has any: the end of a pass over the letters that exist now. */
const newest = Effect.fnUntraced(function*(store: LetterStore, shards: ReadonlyArray<number>) {
  const out = new Map<number, string>()
  yield* Effect.forEach(shards, (shard) =>
    Effect.map(store.list(shard, { order: "newest", limit: 1 }), ([letter]) => {
      if (letter !== undefined) out.set(shard, letter.letterId)
    }), { concurrency: 8, discard: true })
  return out
})

/** Letters found, and letters that were moved or deleted. */
export interface Swept {
  readonly matched: number
  readonly moved: number
}

/** Applies an action to all letters that match and exist now, in batches. */
export const sweep = Effect.fnUntraced(function*<E, R>(
  store: LetterStore,
  query: Query,
  limit: number,
  batch: number,
  act: (shard: number, letterIds: ReadonlyArray<string>) => Effect.Effect<number, E, R>,
  after: (progress: Swept, size: number) => Effect.Effect<void>
) {
  // A message that dies again meanwhile is not part of this sweep.
  const upTo = yield* newest(store, query.shards)
  const next = scan(store, query, { order: "oldest", upTo, wanted: Math.min(limit, 1000) })
  let progress: Swept = { matched: 0, moved: 0 }
  while (progress.matched < limit) {
    const some: Array<Found> = []
    while (some.length < Math.min(batch, limit - progress.matched)) {
      const found = yield* next
      if (found === undefined) break
      some.push(found)
    }
    if (some.length === 0) break
    let { matched, moved } = progress
    for (const [shard, found] of Map.groupBy(some, ({ shard }) => shard)) {
      moved += yield* act(shard, found.map(({ letter }) => letter.letterId))
    }
    progress = { matched: matched + some.length, moved }
    yield* after(progress, some.length)
  }
  return progress
})
