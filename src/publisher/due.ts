/**
 * Times and spans of a publish: reads them into the form of the port, or refuses them.
 */
import type { DateTime, Duration } from "effect"
import type { Due } from "../broker/publishing.ts"
import { millisOf, time } from "../internal/optionChecks.ts"
import { calm, shown } from "../internal/describe.ts"
import { lastMillis } from "../internal/times.ts"

/** Reads the time of a publish from `delay` or `at`. */
export interface When {
  readonly delay?: Duration.Input | undefined
  readonly at?: DateTime.DateTime.Input | undefined
}

/** `nowMillis` only bounds a delay; the clock of the backend decides what is due. */
export const dueOf = ({ at, delay }: When, nowMillis: number): Due | string | undefined => {
  if (delay !== undefined && at !== undefined) return "give either a delay or a time (at), not both"
  if (delay !== undefined) {
    const millis = millisOf(delay)
    calm(delay)
    if (!(millis >= 0)) return `the delay must be a duration of 0 or more, it is ${shown(delay)}`
    if (nowMillis + millis > lastMillis) return `the delay ${shown(delay)} ends after the year 9999`
    return millis === 0 ? undefined : { delayMillis: Math.ceil(millis) }
  }
  if (at === undefined) return undefined
  const found = time("at", at)
  if (found._tag === "Failure") return found.failure.message
  return found.success > lastMillis ? "at is after the year 9999" : { atMillis: found.success }
}

/** Reads a time to live. */
export const expiryOf = (span: Duration.Input, nowMillis: number): number | string => {
  const millis = millisOf(span)
  calm(span)
  return millis > 0 && nowMillis + millis <= lastMillis
    ? Math.ceil(millis)
    : `expiresIn must be a duration above 0 that ends before the year 10000, it is ${shown(span)}`
}
