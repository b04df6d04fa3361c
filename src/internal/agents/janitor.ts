/**
 * Removes from the logs what every group has acknowledged and what is beyond a channel's limits. It comes soon again while
 * there is something to remove, and seldom otherwise.
 */
import { Effect } from "effect"
import type { Broker } from "../../Broker.ts"
import { supervise } from "../supervise.ts"
import type { Pulse } from "./pulse.ts"

export const run = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Pulse
): Effect.Effect<never> =>
  supervise(
    `trimming in shard ${shard}`,
    Effect.flatMap(
      broker.trim(shard),
      (removed) => removed > 0 ? Effect.sleep(Math.min(5_000, intervalMillis)) : broker.rest(intervalMillis)
    ),
    pulse
  )
