/**
 * Deliveries on their way to a handler by their keys: what was done before is acknowledged, what is being handled elsewhere comes
 * back later. One script for all that came in the meantime.
 */
import { Effect, Latch } from "effect"
import type { Begun, BrokerError, Member } from "../Broker.ts"
import type { Settlement } from "../internal/settlement.ts"
import type { HeldDelivery } from "./heldDelivery.ts"

/** The key of a delivery, or how it ends because it has none. */
export type KeyOf<R> = (held: HeldDelivery) => Effect.Effect<string | Settlement, never, R>

export interface OnceGate<R> {
  readonly add: (held: HeldDelivery) => void
  /** Takes back what has not been looked at yet. */
  readonly clear: () => ReadonlyArray<HeldDelivery>
  /** Waits for deliveries and begins them; to be run again and again by one fiber. */
  readonly next: Effect.Effect<void, BrokerError, R>
}

export const make = <R>(
  member: Member,
  keyOf: KeyOf<R>,
  then: {
    readonly begun: (held: HeldDelivery, begun: Begun) => void
    readonly end: (held: HeldDelivery, settlement: Settlement) => void
  }
): OnceGate<R> => {
  const arrived = Latch.makeUnsafe(false)
  const keys = new Map<HeldDelivery, string>()
  let fresh: Array<HeldDelivery> = []

  const next = Effect.gen(function*() {
    yield* arrived.await
    arrived.closeUnsafe()
    const taken = fresh
    fresh = []
    for (const held of taken) {
      if (keys.has(held)) continue
      const key = yield* keyOf(held)
      if (typeof key === "string") keys.set(held, key)
      else if (held.phase === "waiting") then.end(held, key)
    }
    const batch: Array<HeldDelivery> = []
    for (const held of taken) {
      // What was lost meanwhile is another's.
      if (held.phase === "waiting" && keys.has(held)) batch.push(held)
      else keys.delete(held)
    }
    if (batch.length === 0) return
    const result = yield* Effect.result(
      member.begin(batch.map((held) => ({ delivery: held.delivery, key: keys.get(held)! })))
    )
    if (result._tag === "Failure") {
      // Nothing is forgotten: to begin twice changes nothing.
      fresh = [...batch, ...fresh]
      arrived.openUnsafe()
      return yield* Effect.fail(result.failure)
    }
    for (const [i, held] of batch.entries()) {
      keys.delete(held)
      if (held.phase === "waiting") then.begun(held, result.success[i]!)
    }
  })

  return {
    add: (held) => {
      fresh.push(held)
      arrived.openUnsafe()
    },
    clear: () => {
      const all = fresh
      fresh = []
      for (const held of all) keys.delete(held)
      return all
    },
    next
  }
}
