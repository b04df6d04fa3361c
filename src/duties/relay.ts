/**
 * The outbox relay moves messages that transactions put into the outbox of a shard to the shards of their channels. It wakes when a message is
 * put there; `interval` is the fallback for a lost wake-up.
 */
import { Effect } from "effect"
import type { Duty } from "./duty.ts"
import { turns } from "./duty.ts"

const batch = 500

export const run: Duty = (broker, shard, intervalMillis, pulse) =>
  turns(`relaying from shard ${shard}`, {
    intervalMillis,
    pulse,
    signal: broker.awaitOutbox(shard),
    work: Effect.map(broker.relay(shard, batch), (moved) => moved < batch ? undefined : 0)
  })
