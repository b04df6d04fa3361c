/** Plays a history on several backends, and gives their differences. */
import { Cause, Effect, type Layer } from "effect"
import type { Rotif } from "rotif"
import type { History, Step } from "./history.ts"
import { type Outcome, play } from "./play.ts"

/** A backend; `layer` builds the services on a new namespace at each call. */
export interface Backend {
  readonly name: string
  readonly layer: (shards: number) => Layer.Layer<Rotif.Services, unknown>
}

const sorted = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(sorted)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(
      Object.entries(value).filter(([, one]) => one !== undefined).sort(([a], [b]) => a < b ? -1 : 1).map((
        [key, one]
      ) => [key, sorted(one)])
    )
    : value

const text = (value: unknown) => JSON.stringify(sorted(value))

/** Whether two accounts are the same, as far as both backends can tell. */
const isSameAccount = (a: unknown, b: unknown) => {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return text(a) === text(b)
  // On Redis a group that began inside of a log does not know some of these until it has reached the end.
  const untold = ["open", "skipped", "lost"].filter((name) =>
    (a as Record<string, unknown>)[name] === undefined || (b as Record<string, unknown>)[name] === undefined
  )
  const told = (value: object) => Object.fromEntries(Object.entries(value).filter(([name]) => !untold.includes(name)))
  return text(told(a)) === text(told(b))
}

/** Where two outcomes differ, in words. */
export const differences = (one: Outcome, other: Outcome): ReadonlyArray<string> => {
  const out: Array<string> = []
  for (const part of Object.keys(one) as Array<keyof Outcome>) {
    const [a, b] = [one[part] as Record<string, unknown>, other[part] as Record<string, unknown>]
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const isSame = part === "accounts" ? isSameAccount(a[key], b[key]) : text(a[key]) === text(b[key])
      if (!isSame) out.push(`${part} of ${key}: ${text(a[key])} and ${text(b[key])}`)
    }
  }
  return out
}

export interface Difference {
  readonly backend: string
  readonly differences: ReadonlyArray<string>
}

const outcomeOf = (history: History, { layer }: Backend) => Effect.exit(play(history, layer(history.shards)))

/** The differences of the other backends from the first; none when all are the same. */
export const compare = Effect.fnUntraced(function*(history: History, backends: ReadonlyArray<Backend>) {
  const [first, ...others] = yield* Effect.forEach(backends, (backend) => outcomeOf(history, backend), {
    concurrency: "unbounded"
  })
  const found: Array<Difference> = []
  if (first!._tag === "Failure") {
    found.push({ backend: backends[0]!.name, differences: [`it failed: ${Cause.pretty(first!.cause)}`] })
  }
  for (const [i, other] of others.entries()) {
    const { name } = backends[i + 1]!
    if (other._tag === "Failure") {
      found.push({ backend: name, differences: [`it failed: ${Cause.pretty(other.cause)}`] })
    } else if (first!._tag === "Success") {
      const different = differences(first!.value, other.value)
      if (different.length > 0) found.push({ backend: name, differences: different })
    }
  }
  return found
})

/** Leaves out steps while the difference stays, in at most `tries` attempts. */
export const shrink = Effect.fnUntraced(function*(
  history: History,
  backends: ReadonlyArray<Backend>,
  tries = 150
): Effect.fn.Return<History> {
  let steps: ReadonlyArray<Step> = history.steps
  let left = tries
  for (let size = Math.ceil(steps.length / 2); size >= 1 && left > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < steps.length && left > 0; left--) {
      const fewer = [...steps.slice(0, from), ...steps.slice(from + size)]
      if ((yield* compare({ ...history, steps: fewer }, backends)).length > 0) steps = fewer
      else from += size
    }
  }
  return { ...history, steps }
})
