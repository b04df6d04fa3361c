/**
 * Makes waiting messages ready when their time has come. It sleeps until the next one is due and is woken when an earlier one
 * arrives; `interval` is only a safety net, for a wake-up that was lost: `Infinity` where none is.
 */
import { Effect, Fiber } from "effect"
import type { Broker } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import { pause } from "../internal/pause.ts"
import { supervise } from "../internal/supervise.ts"

/** How often retries are looked for that nothing has told of. */
const retryMillis = 30_000

/** What promotes retries, by shard, and how many subscriptions need it. */
export type RetryPromoters = Map<number, { users: number; readonly fiber: Fiber.Fiber<never> }>

/**
 * Keeps retries coming in the current scope, in a process that promotes nothing else. Those that share `running`, by shard, share what
 * they start.
 */
export const keepRetries = Effect.fnUntraced(function*(
  broker: Broker["Service"],
  shards: ReadonlyArray<number>,
  running: RetryPromoters
) {
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const begin = (shard: number) =>
    Effect.sync(() => {
      const shared = running.get(shard)
      if (shared !== undefined) shared.users++
      else running.set(shard, { users: 1, fiber: fork(run(broker, shard, retryMillis, undefined, "retries")) })
    })
  const end = (shard: number) =>
    Effect.suspend(() => {
      const shared = running.get(shard)
      if (shared === undefined || --shared.users > 0) return Effect.void
      running.delete(shard)
      return Fiber.interrupt(shared.fiber)
    })
  for (const shard of shards) yield* Effect.acquireRelease(begin(shard), () => end(shard))
})

/** Messages moved in one step: large enough for throughput, small enough to hold up nobody. */
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
    // Its scope is one look: what listens for it ends with it, also when it fails.
    Effect.scoped(Effect.gen(function*() {
      // Listening starts before looking: what arrives in between is not missed.
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
