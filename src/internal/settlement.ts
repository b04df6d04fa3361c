/** How a delivery ends: acknowledged, given back, tried again, or given up. */
import type { Cause } from "effect"
import type { Delivery, Failure } from "../Broker.ts"

/** Why a delivery is given back or tried again: a word, or what its handler failed with. */
export type Because = "interrupted" | "released" | "busy" | Cause.Cause<unknown>

/** How a delivery ends. */
export type Settlement =
  | { readonly _tag: "Ack"; readonly isDuplicate?: true }
  /** Acknowledged without having been handled: its key is not done. */
  | { readonly _tag: "Drop" }
  | {
    readonly _tag: "Redeliver"
    readonly delayMillis: number
    readonly attempt: number
    readonly isRetry: boolean
    /** For reports; nothing is said where it is missing. */
    readonly because?: Because | undefined
  }
  | { readonly _tag: "Bury"; readonly failure: Failure }

/** What a handler leaves behind. `Hold`: it is done, and somebody else will settle the delivery. */
export type HandlerOutcome = Settlement | { readonly _tag: "Hold" }

export const ackSettlement: Settlement = { _tag: "Ack" }

export const expiredSettlement: Settlement = { _tag: "Drop" }

export const duplicateSettlement: Settlement = { _tag: "Ack", isDuplicate: true }

export const holdSettlement: HandlerOutcome = { _tag: "Hold" }

/** Given back by the consumer itself, which ends, pauses or has no place: at once. */
export const release = (
  delivery: Delivery,
  because?: Because
): Extract<Settlement, { readonly _tag: "Redeliver" }> => ({
  _tag: "Redeliver",
  delayMillis: 0,
  attempt: delivery.attempt,
  isRetry: false,
  because
})

/** So many hand-outs are followed by the next one at once: the few retries of an ordinary policy need not wait, which costs more. */
const unpaced = 3

/**
 * At least so long a message waits that is to come again at once because its handler says so: three times not at all, then 10 ms, and
 * twice as long with each hand-out, up to a second. So nothing that always asks for it can make a busy loop.
 */
export const paceMillis = (handOuts: number): number =>
  handOuts <= unpaced ? 0 : Math.min(1_000, 10 * 2 ** Math.min(handOuts - unpaced - 1, 7))

/** Again, because a handler or a policy says so: after a delay, or at once, which is paced. */
export const again = (
  delivery: Delivery,
  delayMillis: number,
  because?: Because,
  attempt = delivery.attempt
): Extract<Settlement, { readonly _tag: "Redeliver" }> => ({
  _tag: "Redeliver",
  delayMillis: delayMillis > 0 ? delayMillis : paceMillis(delivery.deliveryCount),
  attempt,
  isRetry: attempt > delivery.attempt,
  because
})

/** Another delivery with the same key is being handled: again soon, and less and less soon, until that one has ended. */
export const later = (delivery: Delivery, leaseMillis: number): Settlement => ({
  ...release(delivery, "busy"),
  delayMillis: Math.min(leaseMillis / 3, 25 * 2 ** Math.min(delivery.deliveryCount, 10))
})
