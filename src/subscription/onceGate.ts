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
  const found = new Map<HeldDelivery, string | Settlement>()
  const deciding = new Set<HeldDelivery>()
  /** The deliveries that are not begun yet, in the order of their arrival. */
  let line: Array<HeldDelivery> = []

  /** A key that is not there at once is found beside the others, so that each is waited for from its own arrival. */
  const decide = Effect.fnUntraced(function*(held: HeldDelivery, key: Effect.Effect<string | Settlement, never, R>) {
    deciding.add(held)
    const find = Effect.map(key, (key) => {
      if (deciding.has(held)) found.set(held, key)
    })
    yield* Effect.forkChild(Effect.ensuring(
      find,
      Effect.sync(() => {
        deciding.delete(held)
        arrived.openUnsafe()
      })
    ))
  })

  const next = Effect.gen(function*() {
    yield* arrived.await
    arrived.closeUnsafe()
    for (const held of line) {
      if (found.has(held) || deciding.has(held)) continue
      const key = keyOf(held)
      if (isDone(key)) found.set(held, key.value)
      else yield* decide(held, key)
    }
    const batch: Array<HeldDelivery> = []
    const keys: Array<string> = []
    let taken = 0
    for (const held of line) {
      const key = found.get(held)
      // A delivery that was lost meanwhile belongs to another consumer.
      if (held.phase === "waiting") {
        if (key === undefined) break
        if (typeof key === "string") {
          batch.push(held)
          keys.push(key)
        } else {
          found.delete(held)
          then.end(held, key)
        }
      } else {
        found.delete(held)
        deciding.delete(held)
      }
      taken++
    }
    line = line.slice(taken)
    if (batch.length === 0) return
    const result = yield* Effect.result(
      member.begin(batch.map((held, i) => ({ delivery: held.delivery, key: keys[i]! })))
    )
    if (result._tag === "Failure") {
      // They are begun again: to begin twice changes nothing.
      line = [...batch, ...line]
      arrived.openUnsafe()
      return yield* Effect.fail(result.failure)
    }
    for (const [i, held] of batch.entries()) {
      found.delete(held)
      if (held.phase === "waiting") then.begun(held, result.success[i]!)
    }
  })

  return {
    add: (held) => {
      line.push(held)
      arrived.openUnsafe()
    },
    clear: () => {
      const all = line
      line = []
      for (const held of all) {
        found.delete(held)
        deciding.delete(held)
      }
      return all
    },
    next
  }
}
