/**
 * Sharing: while all handlers are busy and none ends, nothing more is fetched, and what has waited here too long is given back if another
 * consumer of the group could have it. With nobody else it keeps its place.
 */
import type { Clock } from "effect"
import { Effect } from "effect"
import type { Broker } from "../Broker.ts"
import type { Capacity } from "./capacity.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"
import { giveBack } from "./heldDelivery.ts"

/** After this long, what waits here and could be had by another consumer is given back. */
const patienceMillis = 250

/** When all places are taken and no handler has ended for this long, nothing more is fetched in advance. */
const unmovedMillis = 100

/** Waits for something that waits, and looks after it; to be run again and again by one fiber. */
export const make = ({ capacity, clock, dispatch, isPolled, shards, wakeKeeper }: {
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly dispatch: Pick<Dispatch<never>, "endedHandlers" | "queue" | "running" | "someEnded" | "someWait">
  readonly isPolled: Broker["Service"]["isPolled"]
  readonly shards: ReadonlyArray<ShardConsumer>
  /** Makes a reader return that waits with all the room. */
  readonly wakeKeeper: Effect.Effect<void>
}) =>
  Effect.gen(function*() {
    const { endedHandlers, queue, running, someEnded, someWait } = dispatch
    yield* someWait.await
    const { oldest } = queue
    const isBusy = () => running() >= capacity.concurrency
    if (oldest === undefined && (!isBusy() || capacity.isStalled)) return someWait.closeUnsafe()
    const waitedMillis = oldest === undefined ? 0 : Number(clock.monotonicTimeNanosUnsafe() - oldest.heldSince) / 1e6
    /** Nothing more is fetched in advance until a handler has ended: neither what would wait, nor again what is given back. */
    const stall = Effect.suspend(() => {
      capacity.stall()
      someEnded.closeUnsafe()
      return capacity.awaitReleased(wakeKeeper)
    })
    if (!isBusy() || waitedMillis < patienceMillis) {
      const before = endedHandlers()
      const leftMillis = Math.max(1, patienceMillis - waitedMillis)
      yield* Effect.sleep(capacity.isStalled ? leftMillis : Math.min(unmovedMillis, leftMillis))
      const isUnmoved = isBusy() && endedHandlers() === before
      return isUnmoved && !capacity.isStalled ? yield* stall : undefined
    }
    capacity.waited(waitedMillis)
    yield* stall
    for (const shard of shards) {
      const waiting = queue.waiting.filter((held) => held.shard === shard)
      if (waiting.length === 0) continue
      const shared = yield* shard.member.shared(new Set(waiting.map(({ delivery }) => delivery.channel)))
      for (const held of waiting) if (held.phase === "waiting" && shared.has(held.delivery.channel)) giveBack(held)
    }
    // Somebody may come.
    yield* isPolled
      ? Effect.sleep(patienceMillis)
      : Effect.raceFirst(someEnded.await, Effect.raceAllFirst(shards.map(({ member }) => member.awaitJoin)))
  })
