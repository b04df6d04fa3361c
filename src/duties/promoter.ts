/**
 * The promoter makes waiting messages ready when they are due. It sleeps until the next one is due, and wakes when an earlier one arrives.
 * `interval` is the fallback for a lost wake-up: `Infinity` if none can be lost.
 */
import { Effect, Fiber } from "effect"
import type { Broker } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import { pause } from "../internal/pause.ts"
import * as SharedFibers from "../internal/sharedFibers.ts"
import { supervise } from "../internal/supervise.ts"

/** Fallback poll interval for retries, in case a notification is lost. */
const retryMillis = 30_000

/**
 * Promotes retries in the current scope, in a process that promotes nothing else. Callers with the same `running` share one promoter for each
 * shard.
 */
export const keepRetries = (
  broker: Broker["Service"],
  shards: ReadonlyArray<number>,
  running: SharedFibers.SharedFibers<number>
) =>
  Effect.forEach(
    shards,
    (shard) => SharedFibers.use(running, shard, run(broker, shard, retryMillis, undefined, "retries")),
    { discard: true }
  )

/** Messages moved in one step: large enough for throughput, small enough not to hold up others. */
const batch = 500

export const run = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Heartbeat | undefined,
  only?: "retries"
): Effect.Effect<never> =>
  supervise(
    `promoting ${only === undefined ? "" : "retries "}in shard ${shard}`,
    // The scope is one turn: its listener ends with it, also after a failure.
    Effect.scoped(Effect.gen(function*() {
      // Listening starts before reading: a message that arrives in between is not missed.
      const earlier = yield* Effect.forkScoped(broker.awaitEarlier(shard), { startImmediately: true })
      const { nextInMillis } = yield* broker.promote(shard, batch, only)
      if (nextInMillis !== 0) {
        yield* Effect.raceFirst(
          Fiber.join(earlier),
          pause(Math.min(nextInMillis ?? intervalMillis, intervalMillis))
        )
      }
    })),
    pulse
  )
