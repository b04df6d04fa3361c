/**
 * Checks of values that users give, as options and at run time. Each check returns the value to use, or a problem, which the calling module
 * turns into an error of its own.
 */
import { isPositionOrMillis } from "../broker/position.ts"
import type { Context } from "effect"
import { DateTime, Duration, Effect, Fiber, Result, Schema } from "effect"
import { nearest } from "./suggestion.ts"
import { calm, isDate, isPromise, messageOf, shown } from "./describe.ts"

/** A problem with an option. */
export interface Problem {
  readonly option: string
  readonly message: string
}

/** The fields of the errors that modules make of a problem. */
export const problemFields = { option: Schema.String, message: Schema.String }

type Found<A> = Result.Result<A, Problem>

/** The default and the bounds of an option; `undefined` takes the default. */
export interface Bounds {
  readonly usual: number
  readonly least: number
  readonly most?: number | undefined
}

const grouped = (count: number) => count.toLocaleString("en")

const wrong = (option: string, message: string) => Result.fail<Problem>({ option, message })

/** Says what to do about a Promise: an `async` function in place of a plain one is the commonest mistake. */
const problemOf = (wanted: string, value: unknown): string => {
  calm(value)
  const hint = isPromise(value) ? " (give what it resolves to; an async function gives a Promise)" : ""
  return `must be ${wanted}, it is ${shown(value)}${hint}`
}

export const refuse = (option: string, wanted: string, value: unknown): Result.Failure<never, Problem> =>
  wrong(option, `${option} ${problemOf(wanted, value)}`) as Result.Failure<never, Problem>

// Numbers and spans -----------------------------------------------------------------------------------------------------

export const count = (option: string, value: number | undefined, bounds: Bounds): Found<number> => {
  const { least, most = 100_000, usual } = bounds
  if (value === undefined) return Result.succeed(usual)
  return Number.isInteger(value) && value >= least && value <= most
    ? Result.succeed(value)
    : refuse(option, `a whole number from ${grouped(least)} to ${grouped(most)}`, value)
}

const hasOnly = (value: object, names: ReadonlySet<string>): boolean => {
  const given = Object.entries(value).filter(([, part]) => part !== undefined)
  return given.length > 0 && given.every(([name, part]) => names.has(name) && Number.isFinite(part))
}

const partsOfSpan = new Set("weeks days hours minutes seconds milliseconds microseconds nanoseconds".split(" "))

/** The milliseconds of a span; NaN if it is none. `Duration` itself reads NaN, a Promise, `{}` and a `Date` as 0. */
export const millisOf = (span: unknown): number => {
  if (typeof span === "number") return span
  if (typeof span === "object" && span !== null && !Duration.isDuration(span)) {
    const isSpan = Array.isArray(span)
      ? span.length === 2 && span.every((part) => Number.isFinite(part))
      : hasOnly(span, partsOfSpan)
    if (!isSpan) return Number.NaN
  }
  const duration = Duration.fromInput(span as Duration.Input)
  return duration._tag === "Some" ? Duration.toMillis(duration.value) : Number.NaN
}

/** The longest wait of a timer: a little more than 23 days. */
export const longestMillis = 2_000_000_000

const bound = (most: number) => most === Infinity ? "" : ` and at most ${grouped(Math.floor(most / 86_400_000))} days`

export const span = (
  option: string,
  value: Duration.Input | undefined,
  { least, most = longestMillis, usual }: Bounds
): Found<number> => {
  if (value === undefined) return Result.succeed(usual)
  const millis = millisOf(value)
  return millis >= least && millis <= most
    ? Result.succeed(millis)
    : refuse(option, `a duration of at least ${grouped(least)} ms${bound(most)}`, value)
}

/** A message waits for its next attempt for at most this long, and a key is remembered for at most this long: ten years. */
export const longestKeptMillis = 315_576_000_000

/** The delay in place of one that cannot be used: never "at once". */
export const safeDelayMillis = 1_000

/** The delay before the next hand-out of a message, from a retry function, a schedule or a handler. */
export const delay = (option: string, value: unknown): Found<number> => {
  const millis = millisOf(value)
  return millis >= 0 && millis < Infinity
    ? Result.succeed(Math.min(millis, longestKeptMillis))
    : refuse(option, "a duration of 0 or more", value)
}

/** A span above 0. */
export const positive = (option: string, value: unknown): Found<number> => {
  const millis = millisOf(value)
  return millis > 0 && millis < Infinity ? Result.succeed(millis) : refuse(option, "a duration above 0", value)
}

// Times -----------------------------------------------------------------------------------------------------------------

const partsOfTime = new Set("year month day hour minute second millisecond epochMilliseconds".split(" "))

const partOf = (part: "day" | "year", millis: number) => DateTime.getPartUtc(DateTime.makeUnsafe(millis), part)

/** Whether the parts are those of a time that exists: a `DateTime` turns the 13th month into the first one of the next year. */
const isInCalendar = (parts: object): boolean => {
  const made = DateTime.make({ year: 1970, ...parts })
  if (made._tag === "None") return false
  // The parts are numbers under these names; the type has no index.
  const found = DateTime.toPartsUtc(made.value) as unknown as { readonly [part: string]: number }
  return Object.entries(parts).every(([name, part]) => part === undefined || part === found[name])
}

/** Refuses a day that does not exist: `Date` turns February 30 into March 2. The day in a text is compared in any time zone. */
const isRealDay = (text: string, millis: number): boolean => {
  const iso = /^([+-]?\d{4,6})-(\d{2})-(\d{2})/.exec(text)
  if (iso !== null) return isInCalendar({ year: Number(iso[1]), month: Number(iso[2]), day: Number(iso[3]) })
  // A number above 31 is no day; a year may have two digits.
  const numbers = text.replace(/\d+:\d+\S*|[+-]\d{4}\b/g, "").match(/(?<!\d)\d+(?!\d)/g)?.map(Number) ?? []
  const year = numbers.some((number) => number > 99) ? -1 : numbers.lastIndexOf(partOf("year", millis) % 100)
  const days = [-1, 0, 1].map((days) => partOf("day", millis + days * 86_400_000))
  return numbers.every((number, i) => i === year || number < 29 || number > 31 || days.includes(number))
}

const readTime = (value: unknown): number => {
  if (typeof value === "object" && value !== null && !DateTime.isDateTime(value) && !isDate(value)) {
    const { epochMilliseconds } = value as { readonly epochMilliseconds?: number | undefined }
    const isTime = epochMilliseconds === undefined
      ? hasOnly(value, partsOfTime) && isInCalendar(value)
      : Number.isFinite(epochMilliseconds)
    if (!isTime) return Number.NaN
  } else if (!["number", "string", "object"].includes(typeof value)) return Number.NaN
  const time = DateTime.make(value as DateTime.DateTime.Input)
  if (time._tag === "None") return Number.NaN
  const millis = DateTime.toEpochMillis(time.value)
  return typeof value !== "string" || isRealDay(value, millis) ? millis : Number.NaN
}

/** The milliseconds since 1970 of a time in the calendar. */
export const time = (option: string, value: unknown): Found<number> => {
  const millis = readTime(value)
  return Number.isFinite(millis)
    ? Result.succeed(millis)
    : refuse(option, "a time in the calendar: a DateTime, a Date, epoch milliseconds or an ISO 8601 text", value)
}

/** A position in the log of a channel. */
export const position = (option: string, value: unknown): Found<string> =>
  typeof value === "string" && isPositionOrMillis(value)
    ? Result.succeed(value)
    : refuse(option, "a position such as \"1700000000000-0\"", value)

// Texts -----------------------------------------------------------------------------------------------------------------

/** One of a few texts; the first is the default. */
export const choice = <const A extends string>(
  option: string,
  value: NoInfer<A> | undefined,
  choices: readonly [A, ...ReadonlyArray<A>]
): Found<A> => {
  if (value === undefined) return Result.succeed(choices[0])
  return choices.includes(value)
    ? Result.succeed(value)
    : refuse(option, choices.map((text) => JSON.stringify(text)).join(" or "), value)
}

// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const control = /[\u0000-\u001f\u007f-\u009f]/

/**
 * Finds the problem with a text that becomes a part of keys. Half of a surrogate pair is stored as another character: two texts would be one.
 */
export const textProblem = (text: unknown, maxBytes: number): string | undefined => {
  if (typeof text !== "string") return problemOf(`a string of 1 to ${grouped(maxBytes)} bytes`, text)
  if (text === "" || Buffer.byteLength(text) > maxBytes) {
    return `must be a string of 1 to ${grouped(maxBytes)} bytes, it has ${grouped(Buffer.byteLength(text))}`
  }
  if (control.test(text)) return "must not contain control characters"
  return text.isWellFormed() ? undefined : "must be well-formed Unicode: half of a surrogate pair is missing"
}

/** A name or a key. */
export const name = (option: string, value: unknown, maxBytes = 1024): Found<string> => {
  const problem = textProblem(value, maxBytes)
  return problem === undefined ? Result.succeed(value as string) : wrong(option, `${option} ${problem}`)
}

/** A key of the user: like a name, but with any characters, because it is stored as a value or hashed. */
export const key = (option: string, value: unknown, maxBytes: number): Found<string> => {
  if (typeof value === "string" && value !== "" && value.isWellFormed() && Buffer.byteLength(value) <= maxBytes) {
    return Result.succeed(value)
  }
  const what = Number.isFinite(maxBytes) ? `a string of 1 to ${grouped(maxBytes)} bytes` : "a string that is not empty"
  return typeof value === "string" && value !== ""
    ? wrong(
      option,
      `${option} must be ${what} of well-formed Unicode, it has ${grouped(Buffer.byteLength(value))} bytes`
    )
    : refuse(option, what, value)
}

// Other shapes ----------------------------------------------------------------------------------------------------------

export const flag = (option: string, value: boolean | undefined, usual: boolean): Found<boolean> =>
  value === undefined
    ? Result.succeed(usual)
    : typeof value === "boolean"
    ? Result.succeed(value)
    : refuse(option, "true or false", value)

/** An optional function. */
export const func = <F>(option: string, value: F): Found<F> =>
  value === undefined || typeof value === "function" ? Result.succeed(value) : refuse(option, "a function", value)

/** A required function. */
export const required = <F>(option: string, value: F): Found<F> =>
  typeof value === "function" ? Result.succeed(value) : refuse(option, "a function", value)

/** A plain object. A list, a Map or the `Headers` of fetch would be read as empty. */
const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !(Symbol.iterator in value) && !isPromise(value)

export const record = (option: string, value: unknown): Found<Readonly<Record<string, unknown>>> =>
  isRecord(value) ? Result.succeed(value) : refuse(option, "an object", value)

/**
 * Options with known names only. `undefined` means no options; a name with the value `undefined` counts as not given. `where` is put in front of
 * a name in messages.
 */
export const known = <O>(option: string, value: O, names: ReadonlySet<string>, where = ""): Found<O> => {
  if (value === undefined) return Result.succeed(value)
  if (!isRecord(value)) return refuse(option, "an object", value)
  for (const name in value) {
    if (!names.has(name) && (value as Record<string, unknown>)[name] !== undefined) {
      const near = nearest(name, names)
      return wrong(
        `${where}${name}`,
        `there is no option "${where}${name}"${near === undefined ? "" : `; did you mean "${where}${near}"?`}`
      )
    }
  }
  return Result.succeed(value)
}

// Code ------------------------------------------------------------------------------------------------------------------

/** The checked result of a function of the user. If it throws, that is the problem. */
export const made = <A>(option: string, call: () => unknown, check: (value: unknown) => Found<A>): Found<A> =>
  Result.flatMap(
    Result.try({ try: call, catch: (error): Problem => ({ option, message: `${option} threw: ${messageOf(error)}` }) }),
    check
  )

/** Runs the effect that code of the user returns. Anything else is a defect that says so: it would silently count as a success. */
export const effect = <A, E, R>(what: string, call: () => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const returned: unknown = call()
    if (Effect.isEffect(returned)) return returned as Effect.Effect<A, E, R>
    calm(returned)
    return Effect.die(new TypeError(`${what} must return an Effect, it returned ${shown(returned)}`))
  })

/** Runs an effect in a fiber of its own, which `interrupt` ends with its caller. */
const apart = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  interrupt: (fiber: Fiber.Fiber<A, E>) => Effect.Effect<void>
): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<A, E>((resume) => {
      const fiber = Effect.runForkWith(context)(effect)
      fiber.addObserver(resume)
      return interrupt(fiber)
    })
  )

/**
 * Runs an effect of the user in a fiber of its own. If a part of it is no effect (`flatMap(() => undefined)`), Effect ends the whole fiber, and
 * nothing in it can catch that: here it is a defect like any other, and the caller continues.
 */
export const contained = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  apart(effect, Fiber.interrupt)

/** After this long, a function of the user that only answers or is told something is given up: a decision, a report, a schema. */
export const longestAnswerMillis = 5_000

/** After this long, a function of the user that works on its own is given up: an archive, `onGap`. */
export const longestWorkMillis = 30_000

/**
 * Runs an effect of the user for a bounded time, in a fiber of its own (see `contained`). Then it is interrupted, and that is a defect; an
 * effect that cannot be interrupted is left behind.
 */
export const prompt = <A, E, R>(
  what: string,
  effect: Effect.Effect<A, E, R>,
  millis = longestAnswerMillis
): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(
    apart(effect, (fiber) => Effect.sync(() => fiber.interruptUnsafe())),
    {
      duration: millis,
      orElse: () => Effect.die(new Error(`${what} has not answered for ${millis / 1_000} seconds`))
    }
  )

/** Finds the problem with the result of code of the Promise API: an Effect or a generator would be acknowledged and never run. */
export const undoneProblem = (what: string, returned: unknown): TypeError | undefined =>
  Effect.isEffect(returned)
    ? new TypeError(`${what} returned an Effect, which nothing runs: return Effect.runPromise(effect), or use rotif`)
    : /^\[object (Async)?Generator\]$/.test(Object.prototype.toString.call(returned))
    ? new TypeError(`${what} is a generator function, which nothing runs: write an async function`)
    : undefined

// What becomes of a problem ---------------------------------------------------------------------------------------------

/** Dies of a problem, for the options of a layer: it is a mistake of the program, after which no caller could continue. */
export const orDie = <A>(found: Found<A>): Effect.Effect<A> =>
  Effect.orDie(Effect.fromResult(Result.mapError(found, ({ message }) => new Error(`rotif: ${message}`))))

/** Makes the function that fails with an error of this class if there is a problem. */
export const failing = <E>(error: new(problem: Problem) => E) => <A>(found: Found<A>): Effect.Effect<A, E> =>
  Result.isSuccess(found) ? Effect.succeed(found.success) : Effect.fail(new error(found.failure))

/** Throws a problem, for constructors that are no effects: it is a mistake of the program. */
export const orThrow = <A>(found: Found<A>, error: (problem: Problem) => Error): A => {
  if (Result.isSuccess(found)) return found.success
  throw error(found.failure)
}

/** Makes the function that throws an error of this class if there is a problem. */
export const throwing = (error: new(problem: Problem) => Error) => <A>(found: Found<A>): A =>
  orThrow(found, (problem) => new error(problem))
