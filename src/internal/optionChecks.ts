/**
 * What users give, as options and at run time: each is what the program goes on with, or what is wrong with it. The module that asks
 * makes an error of its own of that.
 */
import type { Context } from "effect"
import { DateTime, Duration, Effect, Fiber, Result } from "effect"
import { nearest } from "./nearest.ts"
import { calm, isDate, isPromise, messageOf, shown } from "./shown.ts"

/** What is wrong with an option. */
export interface Problem {
  readonly option: string
  readonly message: string
}

type Found<A> = Result.Result<A, Problem>

/** `undefined` takes the default. */
export interface Bounds {
  readonly usual: number
  readonly least: number
  readonly most?: number | undefined
}

const grouped = (count: number) => count.toLocaleString("en")

const wrong = (option: string, message: string) => Result.fail<Problem>({ option, message })

/** Of a Promise is said what to do: an `async` function where a plain one is wanted is the commonest mistake. */
const problemOf = (wanted: string, value: unknown): string => {
  calm(value)
  const hint = isPromise(value) ? " (give what it resolves to; an async function gives a Promise)" : ""
  return `must be ${wanted}, it is ${shown(value)}${hint}`
}

export const refuse = (option: string, wanted: string, value: unknown): Result.Failure<never, Problem> =>
  wrong(option, `${option} ${problemOf(wanted, value)}`) as Result.Failure<never, Problem>

/** An option of its own, else that of the program. `null` is no way to leave one out. */
export const first = <A>(own: A | undefined, shared: A | undefined): A | undefined => own === undefined ? shared : own

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

/** The milliseconds of a span, NaN when it is none. `Duration` itself reads NaN, a Promise, `{}` and a `Date` as 0. */
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

/** The longest that timers can wait: a little more than 23 days. */
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

/** The longest a message may wait for its next attempt: ten years. */
const longestDelayMillis = 315_576_000_000

/** What a delay becomes that cannot be used: never "at once". */
export const safeDelayMillis = 1_000

/** How long a message waits for its next hand-out, whoever says so: a retry function, a schedule, a handler. */
export const delay = (option: string, value: unknown): Found<number> => {
  const millis = millisOf(value)
  return millis >= 0 && millis < Infinity
    ? Result.succeed(Math.min(millis, longestDelayMillis))
    : refuse(option, "a duration of 0 or more", value)
}

/** A span that has to be one: longer than nothing. */
export const positive = (option: string, value: unknown): Found<number> => {
  const millis = millisOf(value)
  return millis > 0 && millis < Infinity ? Result.succeed(millis) : refuse(option, "a duration above 0", value)
}

// Times -----------------------------------------------------------------------------------------------------------------

const partsOfTime = new Set("year month day hour minute second millisecond epochMilliseconds".split(" "))

const isLeap = (year: number) => year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
const daysIn = (year: number, month: number) =>
  month === 2 ? isLeap(year) ? 29 : 28 : [4, 6, 9, 11].includes(month) ? 30 : 31
const partOf = (part: "day" | "year", millis: number) => DateTime.getPartUtc(DateTime.makeUnsafe(millis), part)

/** `Date` makes the 2nd of March of the 30th of February. The day a text names is the one it means, whatever the time zone. */
const isRealDay = (text: string, millis: number): boolean => {
  const iso = /^([+-]?\d{4,6})-(\d{2})-(\d{2})/.exec(text)
  if (iso !== null) return Number(iso[3]) <= daysIn(Number(iso[1]), Number(iso[2]))
  // No month has such a number; a year may, where it has two digits.
  const numbers = text.replace(/\d+:\d+\S*|[+-]\d{4}\b/g, "").match(/(?<!\d)\d+(?!\d)/g)?.map(Number) ?? []
  const year = numbers.some((number) => number > 99) ? -1 : numbers.lastIndexOf(partOf("year", millis) % 100)
  const days = [-1, 0, 1].map((days) => partOf("day", millis + days * 86_400_000))
  return numbers.every((number, i) => i === year || number < 29 || number > 31 || days.includes(number))
}

const readTime = (value: unknown): number => {
  if (typeof value === "object" && value !== null && !DateTime.isDateTime(value) && !isDate(value)) {
    const { day = 1, epochMilliseconds, hour = 0, millisecond = 0, minute = 0, month = 1, second = 0, year = 1970 } =
      value as { readonly [part: string]: number | undefined }
    const isIn = (part: number, least: number, most: number) => part >= least && part <= most
    if (epochMilliseconds === undefined) {
      if (
        !hasOnly(value, partsOfTime) || !isIn(month, 1, 12) || !isIn(day, 1, daysIn(year, month)) ||
        !isIn(hour, 0, 23) || !isIn(minute, 0, 59) || !isIn(second, 0, 59) || !isIn(millisecond, 0, 999)
      ) return Number.NaN
    } else if (!Number.isFinite(epochMilliseconds)) return Number.NaN
  } else if (!["number", "string", "object"].includes(typeof value)) return Number.NaN
  const time = DateTime.make(value as DateTime.DateTime.Input)
  if (time._tag === "None") return Number.NaN
  const millis = DateTime.toEpochMillis(time.value)
  return typeof value !== "string" || isRealDay(value, millis) ? millis : Number.NaN
}

/** The milliseconds since 1970 of a time that is in the calendar. */
export const time = (option: string, value: unknown): Found<number> => {
  const millis = readTime(value)
  return Number.isFinite(millis)
    ? Result.succeed(millis)
    : refuse(option, "a time in the calendar: a DateTime, a Date, epoch milliseconds or an ISO 8601 text", value)
}

// Texts -----------------------------------------------------------------------------------------------------------------

/** One of a few texts. */
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
 * What is wrong with a text that becomes a part of keys, if anything is. Half of a surrogate pair is stored as another character: two
 * texts would be one.
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

/** A key of the user's: as a name, but any character may be in it, because it is stored as a value or hashed. */
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

/** A function that need not be there. */
export const func = <F>(option: string, value: F): Found<F> =>
  value === undefined || typeof value === "function" ? Result.succeed(value) : refuse(option, "a function", value)

/** A function that has to be there. */
export const required = <F>(option: string, value: F): Found<F> =>
  typeof value === "function" ? Result.succeed(value) : refuse(option, "a function", value)

/** Of a list, a Map or the `Headers` of fetch nothing would be read. */
const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !(Symbol.iterator in value) && !isPromise(value)

export const record = (option: string, value: unknown): Found<Readonly<Record<string, unknown>>> =>
  isRecord(value) ? Result.succeed(value) : refuse(option, "an object", value)

/**
 * Options of which all names are known. `undefined`: there are none; a name whose value is `undefined` was not given. `where` is said in
 * front of a name.
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

/** What a function of the user's gives, checked. What it throws is what is wrong with it. */
export const made = <A>(option: string, call: () => unknown, check: (value: unknown) => Found<A>): Found<A> =>
  Result.flatMap(
    Result.try({ try: call, catch: (error): Problem => ({ option, message: `${option} threw: ${messageOf(error)}` }) }),
    check
  )

/** Runs what code of the user's returns. Anything but an effect is a defect that says so: it would be taken for a success in silence. */
export const effect = <A, E, R>(what: string, call: () => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const returned: unknown = call()
    if (Effect.isEffect(returned)) return returned as Effect.Effect<A, E, R>
    calm(returned)
    return Effect.die(new TypeError(`${what} must return an Effect, it returned ${shown(returned)}`))
  })

/**
 * Runs an effect of the user's in a fiber of its own. Where something in it is no effect (`flatMap(() => undefined)`) Effect ends the whole
 * fiber there, past all that would catch it: here it is a defect like any other, and who runs it goes on.
 */
export const contained = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<A, E>((resume) => {
      const fiber = Effect.runForkWith(context)(effect)
      fiber.addObserver(resume)
      return Fiber.interrupt(fiber)
    })
  )

/** After this long, code of the user's that only says something, or is only told something, is given up. */
export const longestAnswerMillis = 5_000

/**
 * Runs an effect of the user's that nothing may wait for without end. When its time is over it is interrupted, and that is a defect; what
 * cannot be interrupted is left behind.
 */
export const prompt = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(
    Effect.contextWith((context: Context.Context<R>) =>
      Effect.callback<A, E>((resume) => {
        const fiber = Effect.runForkWith(context)(effect)
        fiber.addObserver(resume)
        return Effect.sync(() => fiber.interruptUnsafe())
      })
    ),
    {
      duration: longestAnswerMillis,
      orElse: () => Effect.die(new Error(`${what} has not answered for ${longestAnswerMillis / 1_000} seconds`))
    }
  )

/** What is wrong with what code of the Promise API gave: work that only Effect, or a loop, would do is acknowledged and never done. */
export const undoneProblem = (what: string, returned: unknown): TypeError | undefined =>
  Effect.isEffect(returned)
    ? new TypeError(`${what} returned an Effect, which nothing runs: return Effect.runPromise(effect), or use rotif`)
    : /^\[object (Async)?Generator\]$/.test(Object.prototype.toString.call(returned))
    ? new TypeError(`${what} is a generator function, which nothing runs: write an async function`)
    : undefined

// What becomes of a problem ---------------------------------------------------------------------------------------------

/** For the options of a layer: what cannot be used is a mistake of the program, and nothing that a caller could go on after. */
export const orDie = <A>(found: Found<A>): Effect.Effect<A> =>
  Effect.orDie(Effect.fromResult(Result.mapError(found, ({ message }) => new Error(`rotif: ${message}`))))

/** For constructors that are no effects: a mistake of the program, told where it is. */
export const orThrow = <A>(found: Found<A>, error: (problem: Problem) => Error): A => {
  if (Result.isSuccess(found)) return found.success
  throw error(found.failure)
}
