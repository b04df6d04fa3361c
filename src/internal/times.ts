/** Times that may be beyond what a calendar can name. */
import type { Clock } from "effect"
import { DateTime } from "effect"

/** The time of the monotonic clock in whole milliseconds. */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

/** The last millisecond of the year 9999. */
export const lastMillis = 253_402_300_799_999

/** The last millisecond that a date can name. */
const lastMoment = 8_640_000_000_000_000

/** A time that the backend tells. Another program may have written there what is beyond the calendar. */
export const momentOf = (millis: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.min(lastMoment, Math.max(0, millis)) || 0)
