/**
 * Recurrences: a cron expression in a time zone, or an interval. They are stored as text, so that any process can compute the next tick.
 */
import { Cron, DateTime, Duration, Result, Schema } from "effect"
import { longestKept } from "./optionLimits.ts"

/**
 * The ticks that are published late, because no process ran at their time: none, the last, or all in order, at most the last `max`.
 */
export type CatchUp = "none" | "latest" | { readonly all: number }

const CatchUp = Schema.Union([
  Schema.Literals(["none", "latest"]),
  Schema.Struct({ all: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000 })) })
])

export const isCatchUp: (value: unknown) => value is CatchUp = Schema.is(CatchUp)

/** An interval, or a cron expression in a time zone. With `and`, both the day and the weekday must match. */
const Recurrence = Schema.Union([
  Schema.Struct({
    everyMillis: Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: longestKept })),
    catchUp: CatchUp
  }),
  Schema.Struct({
    cron: Schema.String,
    and: Schema.Boolean,
    zone: Schema.String,
    overlap: Schema.Literals(["earlier", "later", "both"]),
    catchUp: CatchUp
  })
])

export type Recurrence = typeof Recurrence.Type

/** A tick that is this late was missed; before that it counts as on time. */
const missedMillis = 30_000

export const encode = (recurrence: Recurrence): string => JSON.stringify(recurrence)

export const fromCron = (cron: Cron.Cron, zone: string, catchUp: CatchUp): Recurrence => ({
  cron: Cron.format(cron, { includeSeconds: true }),
  // Only its JSON form has it.
  and: (cron.toJSON() as { readonly and: boolean }).and,
  zone,
  overlap: cron.onDstOverlap,
  catchUp
})

/** The last millisecond of the calendar (ECMA-262, Time Values). */
const mostTime = 8.64e15

const messageOf = (error: unknown) => error instanceof Error ? error.message : String(error)

/** Reads a stored recurrence, which another program may have written. */
const parse = (text: string): Result.Result<Recurrence, string> =>
  Result.mapError(Schema.decodeResult(Schema.fromJsonString(Recurrence))(text), messageOf)

/** Shows a stored recurrence to a user; `undefined` if it is none. */
export const describe = (text: string) => {
  const parsed = parse(text)
  if (Result.isFailure(parsed)) return undefined
  const recurrence = parsed.success
  return {
    catchUp: recurrence.catchUp,
    recurs: "everyMillis" in recurrence
      ? { every: Duration.millis(recurrence.everyMillis) }
      : { cron: recurrence.cron, timeZone: recurrence.zone }
  }
}

/** The ticks of a recurrence; both functions fail if there is none in that direction. */
export interface Ticks {
  readonly catchUp: CatchUp
  /** The first one after a time. */
  readonly after: (millis: number) => Result.Result<number, string>
  /** The last one at or before a time, counted from a known tick. */
  readonly upTo: (millis: number, known: number) => Result.Result<number, string>
}

/** Reads the text that `encode` wrote, or says why it cannot. */
export const decode = (text: string): Result.Result<Ticks, string> => Result.flatMap(parse(text), ticksOf)

export const ticksOf = (recurrence: Recurrence): Result.Result<Ticks, string> => {
  const { catchUp } = recurrence
  if ("everyMillis" in recurrence) {
    const { everyMillis } = recurrence
    return Result.succeed({
      catchUp,
      after: (millis) => Result.succeed(millis + everyMillis),
      upTo: (millis, known) => Result.succeed(known + Math.floor((millis - known) / everyMillis) * everyMillis)
    })
  }
  // The stored text may be anything.
  return Result.try({
    try: () => Cron.parseUnsafe(recurrence.cron, recurrence.zone, { onDstOverlap: recurrence.overlap }),
    catch: messageOf
  }).pipe(
    Result.map((parsed): Ticks => {
      const cron = recurrence.and
        ? Cron.make({ ...parsed, and: true, tz: DateTime.zoneMakeNamedUnsafe(recurrence.zone) })
        : parsed
      // It throws if there is none (February 30).
      const step = (move: typeof Cron.next, from: number) =>
        Result.try({ try: () => move(cron, from).getTime(), catch: messageOf })
      return {
        catchUp,
        after: (millis) => step(Cron.next, millis),
        upTo: (millis) => step(Cron.prev, millis + 1)
      }
    })
  )
}

/** The ticks to publish at `now`, oldest first, and the next tick. `from` is the first one that is not published. */
export const plan = (
  ticks: Ticks,
  from: number,
  now: number
): Result.Result<{ readonly due: ReadonlyArray<number>; readonly next: number }, string> =>
  Result.gen(function*() {
    if (!(Math.abs(from) <= mostTime && from <= now)) {
      return yield* Result.fail(`it stands at no time that has come (${from})`)
    }
    const last = Math.max(from, yield* ticks.upTo(now, from))
    const next = yield* ticks.after(last)
    const { catchUp } = ticks
    if (catchUp === "none") return { due: now - last > missedMillis ? [] : [last], next }
    const due = [last]
    const most = catchUp === "latest" ? 1 : catchUp.all
    while (due.length < most && due[0]! > from) {
      const before = yield* ticks.upTo(due[0]! - 1, from)
      if (before < from) break
      due.unshift(before)
    }
    return { due, next }
  })
