/**
 * How long a log keeps messages that all groups have acknowledged. The longest grace of all processes counts: another process of the namespace
 * may need more time than this one to find its messages.
 */
import { Effect } from "effect"
import type { Connection } from "../Redis.ts"
import { RedisError } from "../Redis.ts"
import type { Keys } from "./keys.ts"
import { shareSettings } from "./scripts/member/shareSettings.ts"

/** A process confirms its grace this often, sooner where it is gone, and it counts for this long. */
const confirmMillis = 60_000
const settingsMillis = 600_000

export const make = Effect.fnUntraced(function*(
  keys: Keys,
  connection: Connection,
  graceMillis: number,
  monotonic: () => number
) {
  let longestMillis = graceMillis
  let confirmAt = -Infinity
  const note = (told: ReadonlyArray<string>) => {
    longestMillis = told.reduce((longest, text) => Math.max(longest, Number(text) || 0), graceMillis)
  }
  const confirm = Effect.gen(function*() {
    const reply = yield* connection.evaluate(shareSettings, [keys.settings("")], [graceMillis, settingsMillis])
    note(reply as ReadonlyArray<string>)
    confirmAt = monotonic() + confirmMillis
  }).pipe(Effect.catchIf((error) => error.message.startsWith("WRONGTYPE "), () => Effect.void))

  yield* confirm
  return {
    longestMillis: () => longestMillis,

    /** Takes note of the settings as they were read. Where they cannot be read they are confirmed, which fails with the reason. */
    hear: (told: ReadonlyArray<string> | RedisError) => {
      if (!(told instanceof RedisError)) note(told)
      return monotonic() >= confirmAt || told instanceof RedisError || !told.includes(String(graceMillis))
        ? confirm
        : Effect.void
    }
  }
})
