/** Dispatch: deliveries that are held wait in order, and their handlers start when there is room: one by one, or in batches. */
import { Effect } from "effect"
import { duplicateSettlement, later } from "../internal/settlement.ts"
import * as Attempts from "./attempts.ts"
import * as Batches from "./batches.ts"
import type { HeldDelivery, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, giveBack, isPausedOn } from "./heldDelivery.ts"
import * as OnceGate from "./onceGate.ts"
import * as Singles from "./singles.ts"
import * as Trials from "./trials.ts"

export interface Options<R> extends Attempts.Options {
  /** When given, every delivery is done once by its key. */
  readonly keyOf: OnceGate.KeyOf<R> | undefined
  readonly handling: Singles.Handling<R> | Batches.Handling<R>
  readonly leaseMillis: number
  readonly shards: ReadonlyArray<ShardConsumer>
}

export type Dispatch<R> = Effect.Success<ReturnType<typeof make<R>>>

export const make = Effect.fnUntraced(function*<R>(options: Options<R>) {
  const { capacity, clock, handling, keyOf, leaseMillis, shards } = options
  const attempts = new Attempts.Attempts(options, yield* Effect.context<R>())
  let isPaused = false
  const room = () => isPaused || attempts.isClosing ? 0 : capacity.concurrency - attempts.running
  const kept = (): number => trials.places()
  const handlers = handling._tag === "Single"
    ? Singles.make({ attempts, clock, handling, kept, room })
    : Batches.make({ attempts, capacity, clock, handling, kept, room })
  const { perHandler, pump, queue } = handlers

  const trials: Trials.Trials = yield* Trials.make({
    clock,
    room: () => room() * perHandler,
    roomAlone: perHandler,
    start: handlers.start,
    lose: attempts.lose
  })
  attempts.onSuspectLeft = trials.left
  attempts.onRoom = () => {
    trials.wake()
    pump()
  }

  /** Lets a delivery wait for its handler. */
  const line = (held: HeldDelivery) => {
    if (isPausedOn(held)) giveBack(held)
    else if (held.delivery.isSuspect) trials.add(held)
    else queue.push(held)
  }

  const gateOf = (keyOf: OnceGate.KeyOf<R>, { member }: ShardConsumer) =>
    OnceGate.make(member, keyOf, {
      end: enqueue,
      begun: (held, begun) => {
        if (begun === "mine") {
          line(held)
          startWaiting()
        } else enqueue(held, begun === "done" ? duplicateSettlement : later(held.delivery, leaseMillis))
      }
    })
  const gates = new Map<ShardConsumer, OnceGate.OnceGate<R>>(
    keyOf === undefined ? [] : shards.map((shard) => [shard, gateOf(keyOf, shard)])
  )

  const giveBackWaiting = () => {
    const fresh = [...gates.values()].flatMap((gate) => gate.clear())
    for (const held of [...fresh, ...trials.clear(), ...queue.waiting]) if (held.phase === "waiting") giveBack(held)
    queue.clear()
  }

  const startWaiting = () => attempts.isClosing || isPaused ? giveBackWaiting() : pump()

  return {
    attempts,
    queue,
    /** The number of messages that handlers have, or are about to. */
    busy: () => attempts.running * perHandler + queue.size + trials.places(),
    /** The delivery that has waited longest for a handler. */
    oldest: handlers.oldest,
    /** Sets the times of handlers to none. */
    resetTimes: () => {
      attempts.times.reset()
      handlers.resetTimes()
    },
    isPaused: () => isPaused,
    isClosing: () => attempts.isClosing,
    /** Takes a delivery that is held. Call `startWaiting` after the last one. */
    add: (held: HeldDelivery) => {
      const gate = gates.get(held.shard)
      if (gate === undefined || isPausedOn(held)) line(held)
      else gate.add(held)
    },
    /** Starts as many deliveries as there is room for. While the consumer is paused, or ends, it gives all of them back. */
    startWaiting,
    pump,
    pause: () => {
      isPaused = true
      giveBackWaiting()
    },
    resume: () => {
      isPaused = false
      trials.wake()
      pump()
    },
    /** Gives back the deliveries of a shard that wait, and that a pause of the group covers. */
    giveBackPaused: (shard: ShardConsumer) => {
      if (shard.resting === undefined) return
      const gate = gates.get(shard)
      for (const held of queue.waiting) if (held.phase === "waiting" && isPausedOn(held)) giveBack(held)
      for (const held of gate?.clear() ?? []) {
        if (isPausedOn(held)) giveBack(held)
        else gate!.add(held)
      }
      for (const held of trials.clear()) if (held.phase === "waiting") line(held)
    },
    /** Starts nothing from now on, and gives back all deliveries that wait. */
    close: () => {
      attempts.isClosing = true
      giveBackWaiting()
    },
    beginSuspects: trials.next,
    /** Starts batches that are not full in time; `undefined` without batches. */
    beginBatches: handlers.next,
    /** Begins deliveries of one shard by their keys; `undefined` without keys. */
    beginOnce: (shard: ShardConsumer) => gates.get(shard)?.next
  }
})
