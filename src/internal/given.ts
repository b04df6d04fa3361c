/**
 * Options that users give: each is what the program goes on with, or what is wrong with it. The module that asks makes an error of its own
 * of that.
 */
import type { Duration } from "effect"
import { Effect, Result } from "effect"
import { millisOf, shown } from "./due.ts"

/** What is wrong with an option. */
export interface Problem {
  readonly option: string
  readonly message: string
}

/** `undefined` takes the default. */
export interface Bounds {
  readonly usual: number
  readonly least: number
  readonly most?: number | undefined
}

const grouped = (count: number) => count.toLocaleString("en")

const refuse = (option: string, message: string) =>
  Result.fail<Problem>({ option, message: `${option} must be ${message}` })

export const count = (option: string, value: number | undefined, bounds: Bounds): Result.Result<number, Problem> => {
  const { least, most = 100_000, usual } = bounds
  if (value === undefined) return Result.succeed(usual)
  return Number.isInteger(value) && value >= least && value <= most
    ? Result.succeed(value)
    : refuse(option, `a whole number from ${grouped(least)} to ${grouped(most)}, it is ${shown(value)}`)
}

/** The longest that timers can wait: a little more than 23 days. */
const longestMillis = 2_000_000_000

const bound = (most: number) => most === Infinity ? "" : ` and at most ${grouped(Math.floor(most / 86_400_000))} days`

export const span = (
  option: string,
  value: Duration.Input | undefined,
  { least, most = longestMillis, usual }: Bounds
): Result.Result<number, Problem> => {
  if (value === undefined) return Result.succeed(usual)
  const millis = millisOf(value)
  return millis >= least && millis <= most
    ? Result.succeed(millis)
    : refuse(option, `a duration of at least ${grouped(least)} ms${bound(most)}, it is ${shown(value)}`)
}

/** One of a few texts. */
export const choice = <const A extends string>(
  option: string,
  value: NoInfer<A> | undefined,
  choices: readonly [A, ...ReadonlyArray<A>]
): Result.Result<A, Problem> => {
  if (value === undefined) return Result.succeed(choices[0])
  return choices.includes(value)
    ? Result.succeed(value)
    : refuse(option, `${choices.map((text) => JSON.stringify(text)).join(" or ")}, it is ${shown(value)}`)
}

// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const control = /[\u0000-\u001f\u007f-\u009f]/

/**
 * What is wrong with a text that becomes a part of keys, if anything is. Half of a surrogate pair is stored as another character: two
 * texts would be one.
 */
export const textProblem = (text: unknown, maxBytes: number): string | undefined => {
  if (typeof text !== "string" || text === "" || Buffer.byteLength(text) > maxBytes) {
    return `must be a string of 1 to ${grouped(maxBytes)} bytes`
  }
  if (control.test(text)) return "must not contain control characters"
  return text.isWellFormed() ? undefined : "must be well-formed Unicode: half of a surrogate pair is missing"
}

export const name = (option: string, value: string, maxBytes = 1024): Result.Result<string, Problem> => {
  const problem = textProblem(value, maxBytes)
  return problem === undefined ? Result.succeed(value) : Result.fail({ option, message: `${option} ${problem}` })
}

/** For the options of a layer: what cannot be used is a mistake of the program, and nothing that a caller could go on after. */
export const orDie = <A>(found: Result.Result<A, Problem>): Effect.Effect<A> =>
  Effect.orDie(Effect.fromResult(Result.mapError(found, ({ message }) => new Error(`rotif: ${message}`))))
