/**
 * The janitor removes messages that every group has acknowledged, and messages beyond a channel's limits, from the logs. It runs again soon while
 * there is something to remove, at once while there is much, and rarely otherwise.
 */
import { Duration, Effect } from "effect"
import { supervise } from "../internal/supervise.ts"
import type { Duty } from "./duty.ts"

/** After a pass that took this long there is much to remove: the next one follows at once. */
const longMillis = 1_000

export const run: Duty = (broker, shard, intervalMillis, pulse) =>
  supervise(
    `trimming in shard ${shard}`,
    Effect.flatMap(
      Effect.timed(broker.trim(shard)),
      ([took, removed]) =>
        removed > 0 && Duration.toMillis(took) > longMillis
          ? Effect.void
          : Effect.raceFirst(
            removed > 0 ? Effect.sleep(Math.min(5_000, intervalMillis)) : broker.rest(intervalMillis),
            Effect.andThen(
              broker.awaitTrim(shard),
              Effect.sleep(Math.min(intervalMillis, Math.max(5_000, intervalMillis / 4)))
            )
          )
    ),
    pulse
  )
