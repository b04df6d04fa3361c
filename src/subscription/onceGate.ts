/**
 * The gate of `exactlyOnce`: it begins deliveries by their keys before they are handled. A delivery whose key is done is acknowledged; one whose
 * key is being handled elsewhere comes back later. One script serves all deliveries that came in the meantime.
 */
import { Effect, Latch } from "effect"
import type { Begun, BrokerError, Member } from "../Broker.ts"
import { isDone } from "../internal/immediate.ts"
import type { Settlement } from "../internal/settlement.ts"
import type { HeldDelivery } from "./heldDelivery.ts"

/** Finds the key of a delivery, or the settlement of one without a usable key. */
export type KeyOf<R> = (held: HeldDelivery) => Effect.Effect<string | Settlement, never, R>

export interface OnceGate<R> {
  /** Takes a delivery to begin. */
  readonly add: (held: HeldDelivery) => void
  /** Takes back the deliveries that are not begun yet. */
  readonly clear: () => ReadonlyArray<HeldDelivery>
  /** Waits for deliveries and begins them. One fiber runs it again and again. */
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

  const found = (held: HeldDelivery, key: string | Settlement): void => {
    if (typeof key === "string") keys.set(held, key)
    else if (held.phase === "waiting") then.end(held, key)
  }

  const next = Effect.gen(function*() {
    yield* arrived.await
    arrived.closeUnsafe()
    const taken = fresh
    fresh = []
    const slow: Array<Effect.Effect<void, never, R>> = []
    for (const held of taken) {
      if (keys.has(held)) continue
      const key = keyOf(held)
      if (isDone(key)) found(held, key.value)
      else slow.push(Effect.map(key, (key) => found(held, key)))
    }
    if (slow.length > 0) yield* Effect.all(slow, { concurrency: "unbounded", discard: true })
    const batch: Array<HeldDelivery> = []
    for (const held of taken) {
      // A delivery that was lost meanwhile belongs to another consumer.
      if (held.phase === "waiting" && keys.has(held)) batch.push(held)
      else keys.delete(held)
    }
    if (batch.length === 0) return
    const result = yield* Effect.result(
      member.begin(batch.map((held) => ({ delivery: held.delivery, key: keys.get(held)! })))
    )
    if (result._tag === "Failure") {
      // They are begun again: to begin twice changes nothing.
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
