/**
 * The outbox relay moves messages that transactions put into the outbox of a shard to the shards of their channels. It wakes when a message is
 * put there; `interval` is the fallback for a lost wake-up.
 */
import { Effect, Fiber } from "effect"
import type { Broker } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import { supervise } from "../internal/supervise.ts"

const batch = 500

export const run = (
  broker: Broker["Service"],
  shard: number,
  intervalMillis: number,
  pulse: Heartbeat
): Effect.Effect<never> =>
  supervise(
    `relaying from shard ${shard}`,
    Effect.gen(function*() {
      // Listening starts before reading: a message that arrives in between is not missed.
      const more = yield* Effect.forkChild(broker.awaitOutbox(shard), { startImmediately: true })
      yield* broker.relay(shard, batch).pipe(
        Effect.flatMap((moved) =>
          moved < batch ? Effect.raceFirst(Fiber.join(more), Effect.sleep(intervalMillis)) : Effect.void
        ),
        Effect.ensuring(Fiber.interrupt(more))
      )
    }),
    pulse
  )
