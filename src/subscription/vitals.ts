/** The state of a consumer, for `Health`. */
import type { Clock } from "effect"
import type { Pause } from "../Broker.ts"
import type { Heartbeat } from "../internal/heartbeat.ts"
import type { Attempts } from "./attempts.ts"
import type { Capacity } from "./capacity.ts"
import type { Counts, ShardConsumer } from "./heldDelivery.ts"

export interface Vitals {
  /** Its readers, one for each shard. A reader that waits for room, or is paused, rests. */
  readonly readers: ReadonlyArray<Heartbeat>
  /** The pauses of its group that cover something it reads. */
  readonly pauses: ReadonlyArray<Pause>
  /** Whether all handlers run, or no further message may be held: nothing starts before something has ended. */
  readonly isFull: boolean
  /** The time since the last settlement; `undefined` before the first. */
  readonly sinceSettledMillis: number | undefined
  /** How long the longest running handler has run. */
  readonly longestHandlerMillis: number | undefined
  /** A handler that runs longer than this is slow. */
  readonly slowMillis: number
}

export const vitalsOf = ({ attempts, capacity, clock, counts, isPaused, shards, slowMillis }: {
  readonly attempts: Pick<Attempts<never>, "isBusy">
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly isPaused: () => boolean
  readonly shards: ReadonlyArray<ShardConsumer>
  readonly slowMillis: number
}): Vitals => {
  let earliest: bigint | undefined
  for (const { held } of shards) {
    for (const { startedAt } of held) {
      if (startedAt !== undefined && (earliest === undefined || startedAt < earliest)) earliest = startedAt
    }
  }
  return {
    readers: shards.map(({ heartbeat }) => heartbeat),
    // Each shard has a copy of a pause.
    pauses: [...new Map(shards.flatMap((shard) => shard.pauses.map((pause) => [pause.pattern, pause]))).values()],
    isFull: !isPaused() && (attempts.isBusy || capacity.isFull),
    sinceSettledMillis: counts.lastSettledAtMillis === undefined
      ? undefined
      : clock.currentTimeMillisUnsafe() - counts.lastSettledAtMillis,
    longestHandlerMillis: earliest === undefined
      ? undefined
      : Number(clock.monotonicTimeNanosUnsafe() - earliest) / 1e6,
    slowMillis
  }
}
