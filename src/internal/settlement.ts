/** Settlements: a delivery is acknowledged, dropped, returned, or buried as a dead letter. */
import type { Cause } from "effect"
import type { Delivery, Failure } from "../Broker.ts"

/** The reason to return a delivery: a word, or the cause of the failure of its handler. */
export type Because = "interrupted" | "released" | "busy" | Cause.Cause<unknown>

/** The end of a delivery. */
export type Settlement =
  | { readonly _tag: "Ack"; readonly isDuplicate?: true }
  /** Acknowledged without having been handled. Its key does not count as done. */
  | { readonly _tag: "Drop" }
  | {
    readonly _tag: "Redeliver"
    readonly delayMillis: number
    readonly attempt: number
    readonly isRetry: boolean
    /** For reports. Without it nothing is reported. */
    readonly because?: Because | undefined
  }
  | { readonly _tag: "Bury"; readonly failure: Failure }

/** The outcome of a handler. `Hold`: the handler has ended, and the delivery is settled by hand. */
export type HandlerOutcome = Settlement | { readonly _tag: "Hold" }

export const ackSettlement: Settlement = { _tag: "Ack" }

export const expiredSettlement: Settlement = { _tag: "Drop" }

export const duplicateSettlement: Settlement = { _tag: "Ack", isDuplicate: true }

export const holdSettlement: HandlerOutcome = { _tag: "Hold" }

/** Gives a delivery back at once, because the consumer ends, pauses or has no place. */
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

/** This many hand-outs are not paced: the few retries of an ordinary policy need not wait, which costs more. */
const unpaced = 3

/**
 * The pace of a message that a handler returns "at once": no wait after the first three hand-outs, then 10 ms, and twice as long with each
 * further one, at most 1 second. So a handler that always returns a message cannot make a busy loop.
 */
export const paceMillis = (handOuts: number): number =>
  handOuts <= unpaced ? 0 : Math.min(1_000, 10 * 2 ** Math.min(handOuts - unpaced - 1, 7))

/** Returns a delivery because a handler or a policy says so: after a delay, or at once, which is paced. */
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

/** Returns a delivery whose key is being handled: after 25 ms, and twice as long with each hand-out, at most a third of the lease. */
export const later = (delivery: Delivery, leaseMillis: number): Settlement => ({
  ...release(delivery, "busy"),
  delayMillis: Math.min(leaseMillis / 3, 25 * 2 ** Math.min(delivery.deliveryCount, 10))
})
