/**
 * The promoter makes waiting messages ready when they are due. It sleeps until the next one is due, and wakes when an earlier one arrives.
 * `interval` is the fallback for a lost wake-up: `Infinity` if none can be lost.
 */
import { Effect } from "effect"
import type { Broker } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import * as SharedFibers from "../internal/sharedFibers.ts"
import { turns } from "./duty.ts"

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
  turns(`promoting ${only === undefined ? "" : "retries "}in shard ${shard}`, {
    intervalMillis,
    pulse,
    signal: broker.awaitEarlier(shard),
    work: Effect.map(broker.promote(shard, batch, only), ({ nextInMillis }) => nextInMillis)
  })
