/** Attempts of one delivery each: deliveries that wait get a handler each when there is room. */
import type { Clock } from "effect"
import { Cause, Effect, Exit, Scope } from "effect"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { again, release } from "../internal/settlement.ts"
import type { Attempts } from "./attempts.ts"
import { DeliveryQueue } from "./deliveryQueue.ts"
import type { HeldDelivery, ShardConsumer } from "./heldDelivery.ts"
import { enqueue } from "./heldDelivery.ts"

/** Times the first 1,000 handlers, then every eighth. */
const alwaysTimed = 1_000
const timedOneIn = 8

/** The handling of one delivery. */
export interface Handling<R> {
  readonly _tag: "Single"
  /** Handles a delivery. It runs with the scope of the delivery, and closes it. */
  readonly handle: (held: HeldDelivery) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** The verdict on a delivery whose fiber died outside of `handle`: something in the handler was not an effect (`Given.contained`). */
  readonly verdict: (
    held: HeldDelivery,
    cause: Cause.Cause<never>
  ) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
}

export interface Options<R> {
  readonly attempts: Attempts<R>
  readonly clock: Clock.Clock
  /** The number of handlers that may be started. */
  readonly room: () => number
  /** The number of places that are kept free for suspects. */
  readonly kept: () => number
  readonly handling: Handling<R>
}

export const make = <R>({ attempts, clock, handling, kept, room }: Options<R>) => {
  const queue = new DeliveryQueue()
  let starts = 0
  let isPumping = false
  /** About now, while handlers are being started: to read the clock takes more time than the rest of a start. */
  let startingAt = clock.monotonicTimeNanosUnsafe()

  const run = (held: HeldDelivery) => attempts.fork(held, handling.handle(held))

  /** The fiber of a handler has died outside of `handle`: its scope is open, and there is no verdict yet. */
  const died = (held: HeldDelivery, exit: Exit.Failure<HandlerOutcome, never>) => {
    const fiber = attempts.fork(held, Effect.andThen(Scope.close(held.scope, exit), handling.verdict(held, exit.cause)))
    fiber.addObserver((verdict) => {
      if (held.phase !== "running") return
      const isSettled = Exit.isSuccess(verdict) && verdict.value._tag !== "Hold"
      enqueue(held, isSettled ? verdict.value as Settlement : attempts.withoutVerdict(exit.cause, held))
    })
  }

  const finished = (held: HeldDelivery, exit: Exit.Exit<HandlerOutcome>) => {
    // One that has ended at once may have blocked the process, and the next delivery may belong to another consumer by now.
    if (held.fiber === undefined) startingAt = clock.monotonicTimeNanosUnsafe()
    attempts.free(held)
    // A handler that leaves its message open is timed until the message is settled.
    if (held.phase !== "running" || Exit.isFailure(exit) || exit.value._tag !== "Hold") attempts.timed(held)
    if (held.phase === "running") {
      if (Exit.isFailure(exit)) {
        const isInterrupted = Cause.hasInterruptsOnly(exit.cause)
        // At the end of the consumer another one gets it at once; a handler that interrupts itself is paced.
        if (isInterrupted) {
          enqueue(held, attempts.isClosing ? release(held.delivery) : again(held.delivery, 0, "interrupted"))
        } else died(held, exit)
      } else if (exit.value._tag === "Hold") held.phase = "open"
      else enqueue(held, exit.value)
    }
    attempts.over()
  }

  const start = (held: HeldDelivery) => {
    if (attempts.expires(held)) return
    held.phase = "running"
    held.isTimed = starts < alwaysTimed || starts % timedOneIn === 0
    if (held.isTimed) startingAt = clock.monotonicTimeNanosUnsafe()
    held.startedAt = startingAt
    starts++
    attempts.begin(held, run, finished)
  }

  return {
    queue,
    /** Starts as many deliveries as there is room for. */
    pump: () => {
      if (isPumping || queue.size === 0) return
      if (attempts.isBusy) return void attempts.someWait.openUnsafe()
      isPumping = true
      startingAt = clock.monotonicTimeNanosUnsafe()
      const overdue: Array<HeldDelivery> = []
      let stopped: Set<ShardConsumer> | undefined
      while (queue.size > 0 && room() > kept()) {
        const held = queue.shift()
        if (held.phase !== "waiting") continue
        // The lease has passed, because this process was frozen or cut off: another consumer may have the delivery. It waits for the renewal, and
        // so does all that came after it from its shard.
        if (startingAt >= held.leasedUntil || stopped?.has(held.shard) === true) {
          stopped = (stopped ?? new Set()).add(held.shard)
          held.shard.overdue.openUnsafe()
          overdue.push(held)
        } else start(held)
      }
      if (overdue.length > 0) queue.putBack(overdue)
      if (queue.size > 0) attempts.someWait.openUnsafe()
      isPumping = false
    },
    /** Starts a suspect. */
    start: (held: HeldDelivery) => {
      startingAt = clock.monotonicTimeNanosUnsafe()
      start(held)
    },
    /** The delivery that has waited longest for a handler. */
    oldest: () => queue.oldest,
    resetTimes: () => {
      starts = 0
    },
    /** The number of messages that a handler can have. */
    perHandler: 1,
    /** Starts batches that are not full in time. */
    next: undefined
  }
}
