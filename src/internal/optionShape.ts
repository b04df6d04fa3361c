/**
 * Shapes: the options of a call as a table, in which each option stands once, with its check, its bounds and its default. A name that is not in
 * the table is refused.
 */
import type { Duration } from "effect"
import { Result } from "effect"
import * as Given from "./optionChecks.ts"

type Found<A> = Result.Result<A, Given.Problem>

/** Checks the value of an option, also `undefined`. Returns the value to use. */
export type Check<out A = unknown> = (option: string, value: unknown) => Found<A>

type Table<O> = { readonly [K in keyof O]-?: Check }

/** The values of a table. A check of `unknown` leaves the value of the user with its type. */
type Values<O, C> = {
  readonly [K in keyof C]: C[K] extends Check<infer A> ? unknown extends A ? O[K & keyof O] : A : never
}

/** Makes the shape of options from its table. */
export const shape = <O extends object>() => <const C extends Table<O>>(table: C) => {
  const checks = Object.entries<Check>(table)
  const names: ReadonlySet<string> = new Set(Object.keys(table))

  /** Reads the options in the table. `where` is put in front of their names in messages. */
  const read = <P extends O>(options: P | undefined, where = ""): Found<Values<P, C>> => {
    const values: Record<string, unknown> = {}
    for (const [name, check] of checks) {
      const found = check(`${where}${name}`, (options as Readonly<Record<string, unknown>> | undefined)?.[name])
      if (Result.isFailure(found)) return found as Result.Failure<never, Given.Problem>
      values[name] = found.success
    }
    return Result.succeed(values as Values<P, C>)
  }

  /** Reads options that may be left out. */
  const optional = <P extends O>(what: string, options: P | undefined, where?: string): Found<Values<P, C>> =>
    Result.flatMap(Given.known(what, options, names, where), () => read(options, where))

  /** Reads options that must be there. */
  const required = <P extends O>(what: string, options: P, where?: string): Found<Values<P, C>> =>
    Result.flatMap(Given.record(what, options), () => optional(what, options, where))

  /** Picks the options in the table. */
  const pick = <P extends O>(options: P): Pick<P, keyof O & keyof P> =>
    Object.fromEntries(Object.entries(options).filter(([name]) => names.has(name))) as Pick<P, keyof O & keyof P>

  return { names, read, optional, required, pick }
}

/** The options that are given. `undefined` leaves an option out, `null` does not. */
export const given = <O extends object>(options: O): O =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as O

// Checks ----------------------------------------------------------------------------------------------------------------

export const count = (bounds: Given.Bounds): Check<number> => (option, value) =>
  Given.count(option, value as number | undefined, bounds)

export const span = (bounds: Given.Bounds): Check<number> => (option, value) =>
  Given.span(option, value as Duration.Input | undefined, bounds)

export const choice =
  <const A extends string>(...choices: readonly [A, ...ReadonlyArray<A>]): Check<A> => (option, value) =>
    Given.choice<string>(option, value as string | undefined, choices) as Found<A>

export const flag = (usual: boolean): Check<boolean> => (option, value) =>
  Given.flag(option, value as boolean | undefined, usual)

export const name: Check<string> = Given.name

/** A function, which may be left out. */
export const func: Check = Given.func

/** A function that must be there. */
export const handler: Check = Given.required

/** Checks elsewhere, or by types only. */
export const any: Check = (_, value) => Result.succeed(value)

/** Checks a value unless it is left out. */
export const optional = <A>(check: Check<A>): Check<A | undefined> => (option, value) =>
  value === undefined ? Result.succeed(value) : check(option, value)
