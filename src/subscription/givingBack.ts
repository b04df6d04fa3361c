/**
 * Gives back what waits: while all handlers are busy and none ends, nothing more is fetched in advance. A delivery that has waited too long is given back if
 * another consumer of the group reads its channel; otherwise it keeps its place.
 */
import type { Clock } from "effect"
import { Effect } from "effect"
import type { Broker } from "../Broker.ts"
import type { Attempts } from "./attempts.ts"
import type { Capacity } from "./capacity.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"
import { giveBack } from "./heldDelivery.ts"

/** After this long, a waiting delivery is given back if another consumer could have it. */
const patienceMillis = 250

/** After this long without the end of a handler while all are busy, nothing more is fetched in advance. */
const unmovedMillis = 100

/** Waits until deliveries wait, and checks how long they have waited. One fiber runs it again and again. */
export const make = ({ attempts, capacity, clock, dispatch, isPolled, shards, wakeKeeper }: {
  readonly attempts: Pick<Attempts<never>, "ended" | "isBusy" | "someEnded" | "someWait">
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly isPolled: Broker["Service"]["isPolled"]
  readonly dispatch: Pick<Dispatch<never>, "oldest" | "queue">
  readonly shards: ReadonlyArray<ShardConsumer>
  /** Wakes a reader that waits with all the room. */
  readonly wakeKeeper: Effect.Effect<void>
}) =>
  Effect.gen(function*() {
    const { someEnded, someWait } = attempts
    yield* someWait.await
    const { queue } = dispatch
    const oldest = dispatch.oldest()
    const isBusy = () => attempts.isBusy
    if (oldest === undefined && (!isBusy() || capacity.isStalled)) return someWait.closeUnsafe()
    const waitedMillis = oldest === undefined ? 0 : Number(clock.monotonicTimeNanosUnsafe() - oldest.heldSince) / 1e6
    /** Fetches nothing more in advance until a handler has ended: otherwise deliveries that are given back would come here again. */
    const stall = Effect.suspend(() => {
      capacity.stall()
      someEnded.closeUnsafe()
      return capacity.awaitReleased(wakeKeeper)
    })
    if (!isBusy() || waitedMillis < patienceMillis) {
      const before = attempts.ended
      const leftMillis = Math.max(1, patienceMillis - waitedMillis)
      yield* Effect.sleep(capacity.isStalled ? leftMillis : Math.min(unmovedMillis, leftMillis))
      const isUnmoved = isBusy() && attempts.ended === before
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
    // Another consumer may join.
    yield* isPolled
      ? Effect.sleep(patienceMillis)
      : Effect.raceFirst(someEnded.await, Effect.raceAllFirst(shards.map(({ member }) => member.awaitJoin)))
  })
