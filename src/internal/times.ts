/** Times, also those outside of the calendar. */
import type { Clock } from "effect"
import { DateTime } from "effect"

/** The time of the monotonic clock in whole milliseconds. */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

/** The last millisecond of the year 9999. */
export const lastMillis = 253_402_300_799_999

/** The last millisecond that a `Date` can have. */
const lastMoment = 8_640_000_000_000_000

/** Turns a stored time into a date. Another program may have written a time outside of the calendar. */
export const momentOf = (millis: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.min(lastMoment, Math.max(0, millis)) || 0)
