/**
 * Makes waiting messages ready when their time has come. It sleeps until the next one is due and is woken when an earlier one
 * arrives; `interval` is only a safety net, for a wake-up that was lost: `Infinity` where none is.
 */
import { Effect, Fiber } from "effect"
import type { Broker } from "../../Broker.ts"
import { pause } from "../pause.ts"
import { supervise } from "../supervise.ts"
import type { Pulse } from "./pulse.ts"

/** Messages moved in one step: large enough for throughput, small enough to hold up nobody. */
const batch = 500

export const run = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Pulse
): Effect.Effect<never> =>
  supervise(
    `promoting in shard ${shard}`,
    // Its scope is one look: what listens for it ends with it, also when it fails.
    Effect.scoped(Effect.gen(function*() {
      // Listening starts before looking: what arrives in between is not missed.
      const earlier = yield* Effect.forkScoped(broker.awaitEarlier(shard), { startImmediately: true })
      const { nextInMillis } = yield* broker.promote(shard, batch)
      if (nextInMillis !== 0) {
        yield* Effect.raceFirst(
          Fiber.join(earlier),
          pause(Math.min(nextInMillis ?? intervalMillis, intervalMillis))
        )
      }
    })),
    pulse
  )
