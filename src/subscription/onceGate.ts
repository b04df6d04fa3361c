/**
 * Deliveries on their way to a handler by their keys: what was done before is acknowledged, what is being handled elsewhere comes
 * back later. One script for all that came in the meantime.
 */
import { Effect, Latch } from "effect"
import type { Begun, BrokerError, Member } from "../Broker.ts"
import type { Final } from "../internal/settlement.ts"
import type { Held } from "./heldDelivery.ts"

/** The key of a delivery, or how it ends because it has none. */
export type KeyOf<R> = (held: Held) => Effect.Effect<string | Final, never, R>

export interface Beginning<R> {
  readonly add: (held: Held) => void
  /** Takes back what has not been looked at yet. */
  readonly clear: () => ReadonlyArray<Held>
  /** Waits for deliveries and begins them; to be run again and again by one fiber. */
  readonly next: Effect.Effect<void, BrokerError, R>
}

export const make = <R>(
  member: Member,
  keyOf: KeyOf<R>,
  then: { readonly begun: (held: Held, begun: Begun) => void; readonly end: (held: Held, settlement: Final) => void }
): Beginning<R> => {
  const arrived = Latch.makeUnsafe(false)
  const keys = new Map<Held, string>()
  let fresh: Array<Held> = []

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
    const batch: Array<Held> = []
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
