/** Acceptance: deliveries that have come are held, and wait for their handlers; those that no handler may get are settled. */
import type { Clock } from "effect"
import type { Delivery } from "../Broker.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"
import { enqueue, HeldDelivery } from "./heldDelivery.ts"

/** At least this many crashes end a message. The first one may be the fault of another message beside it, so each is tried alone first. */
const fewestCrashes = 2

export interface Options {
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly dispatch: Pick<Dispatch<never>, "add" | "startWaiting">
  readonly maxCrashes: number
}

export type Accept = (shard: ShardConsumer, askedAt: bigint, deliveries: ReadonlyArray<Delivery>) => void

/**
 * Makes the function that takes deliveries which were asked for at `askedAt`. The answer may have lain in the socket while this process was
 * frozen. So the leases count from the time at which this process was certainly awake, if that is later.
 */
export const make = ({ capacity, clock, dispatch, maxCrashes }: Options): Accept => (shard, askedAt, deliveries) => {
  if (deliveries.length > 0) shard.occupied.openUnsafe()
  const leasedUntil = (askedAt > shard.awakeAt ? askedAt : shard.awakeAt) + shard.leaseNanos
  const heldSince = clock.monotonicTimeNanosUnsafe()
  capacity.hold(deliveries.length)
  for (const delivery of deliveries) {
    const held = new HeldDelivery(delivery, shard, leasedUntil, heldSince)
    shard.held.add(held)
    if (delivery.malformed !== undefined) {
      enqueue(held, { _tag: "Bury", failure: { reason: "decode", message: delivery.malformed } })
    } else if (delivery.crashes >= Math.max(fewestCrashes, maxCrashes)) {
      const message =
        `${delivery.crashes} consumers were lost while its handler was running (a crash, or a handler that blocks the event loop)`
      enqueue(held, { _tag: "Bury", failure: { reason: "crashed", message } })
    } else {
      if (delivery.expiresInMillis !== undefined) {
        held.expiresAtMillis = monotonicMillis(clock) + delivery.expiresInMillis
      }
      dispatch.add(held)
    }
  }
  dispatch.startWaiting()
}
