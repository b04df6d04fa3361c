/**
 * Dispatch: deliveries that are held wait in order, get a handler each when there is room, and are settled by its outcome.
 *
 * On the way of a message there is no Stream operator, no queue of Effect's and no fiber but the handler's own.
 */
import type { Clock } from "effect"
import { Cause, Context, Effect, Exit, Latch, Scope } from "effect"
import * as Activity from "../internal/activity.ts"
import type { Reporter } from "../internal/reports.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { again, duplicateSettlement, expiredSettlement, later, release } from "../internal/settlement.ts"
import { slowest } from "../internal/supervise.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import { DeliveryQueue } from "./deliveryQueue.ts"
import { HandlerTimes } from "./handlerTimes.ts"
import type { Counts, HeldDelivery, Settled, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, giveBack } from "./heldDelivery.ts"
import * as OnceGate from "./onceGate.ts"
import * as Trials from "./trials.ts"

/** Times the first 1,000 handlers, then every eighth. */
const alwaysTimed = 1_000
const timedOneIn = 8

/** The handling of one delivery. */
export interface Handling<R> {
  /** When given, every delivery is done once by its key. */
  readonly keyOf: OnceGate.KeyOf<R> | undefined
  /** Handles a delivery. It runs with the scope of the delivery, and closes it. */
  readonly handle: (held: HeldDelivery) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** The verdict on a delivery whose fiber died outside of `handle`: something in the handler was not an effect (`Given.contained`). */
  readonly verdict: (
    held: HeldDelivery,
    cause: Cause.Cause<never>
  ) => Effect.Effect<HandlerOutcome, never, R | Scope.Scope>
  /** What happens to a message whose time to live has ended. */
  readonly expired: "dead-letter" | "drop"
}

export interface Options<R> {
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly handling: Handling<R>
  readonly leaseMillis: number
  readonly reporter: Reporter
  readonly shards: ReadonlyArray<ShardConsumer>
  /** Called while the consumer ends: a handler has begun or ended, or a delivery has left this process. */
  readonly moved: () => void
}

export type Dispatch<R> = Effect.Success<ReturnType<typeof make<R>>>

export const make = Effect.fnUntraced(function*<R>(options: Options<R>) {
  const { capacity, clock, counts, handling, leaseMillis, moved, reporter, shards } = options
  const { concurrency } = capacity
  const services = yield* Effect.context<R>()
  const queue = new DeliveryQueue()
  const times = new HandlerTimes()
  let starts = 0
  /** About now, while handlers are being started. */
  let startingAt = clock.monotonicTimeNanosUnsafe()
  let running = 0
  let endedHandlers = 0
  let isPaused = false
  let isClosing = false
  let isPumping = false
  /** Running handlers, without those that end at once. */
  const live = new Set<HeldDelivery>()
  /** Open when a handler has ended since nothing more was fetched in advance. */
  const someEnded = Latch.makeUnsafe(false)
  /** Open when something waits for a handler, or all places are taken. */
  const someWait = Latch.makeUnsafe(false)

  const drop = (held: HeldDelivery, outcome: Settled) => {
    held.phase = "gone"
    held.outcome = outcome
    held.shard.held.delete(held)
    capacity.drop()
    if (held.delivery.isSuspect) trials.left(held)
    const waiters = held.waiters
    held.waiters = undefined
    if (waiters !== undefined) { for (const waiter of waiters) waiter(outcome) }
    if (isClosing) moved()
  }

  const lose = (held: HeldDelivery) => {
    if (held.phase === "gone") return
    counts.lostLeases++
    reporter.leaseLost(held.delivery)
    drop(held, "lost")
    // Another consumer has the message by now: this handler works in vain.
    held.fiber?.interruptUnsafe()
  }

  const timed = (held: HeldDelivery) => {
    const { startedAt } = held
    held.startedAt = undefined
    if (startedAt === undefined || !held.isTimed) return
    const nanos = Number(clock.monotonicTimeNanosUnsafe() - startedAt)
    times.record(nanos)
    capacity.measured(nanos / 1e6)
  }

  /** The settlement of a delivery without a verdict, which is a mistake in Rotif: it must not become a busy loop. */
  const withoutVerdict = (cause: Cause.Cause<never>, { delivery }: HeldDelivery): Settlement => {
    reporter.noVerdict(delivery, cause)
    return { ...release(delivery), delayMillis: slowest }
  }

  /** The fiber of a handler has died outside of `handle`: its scope is open, and there is no verdict yet. */
  const died = (held: HeldDelivery, exit: Exit.Failure<HandlerOutcome, never>) => {
    const fiber = Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(
      Effect.andThen(Scope.close(held.scope, exit), handling.verdict(held, exit.cause))
    )
    fiber.addObserver((verdict) => {
      if (held.phase !== "running") return
      const isSettled = Exit.isSuccess(verdict) && verdict.value._tag !== "Hold"
      enqueue(held, isSettled ? verdict.value as Settlement : withoutVerdict(exit.cause, held))
    })
  }

  const finished = (held: HeldDelivery, exit: Exit.Exit<HandlerOutcome>) => {
    running--
    endedHandlers++
    if (capacity.ended()) someEnded.openUnsafe()
    held.isOver = true
    if (held.fiber !== undefined) {
      held.fiber = undefined
      live.delete(held)
    }
    // A handler that leaves its message open is timed until the message is settled.
    if (held.phase !== "running" || Exit.isFailure(exit) || exit.value._tag !== "Hold") timed(held)
    if (held.phase === "running") {
      if (Exit.isFailure(exit)) {
        const isInterrupted = Cause.hasInterruptsOnly(exit.cause)
        // At the end of the consumer another one gets it at once; a handler that interrupts itself is paced.
        if (isInterrupted) enqueue(held, isClosing ? release(held.delivery) : again(held.delivery, 0, "interrupted"))
        else died(held, exit)
      } else if (exit.value._tag === "Hold") held.phase = "open"
      else enqueue(held, exit.value)
    }
    if (isClosing) moved()
    trials.wake()
    pump()
  }

  const expire = (held: HeldDelivery) => {
    counts.expired++
    enqueue(
      held,
      handling.expired === "drop"
        ? expiredSettlement
        : { _tag: "Bury", failure: { reason: "expired", message: "its time to live ended before it was handled" } }
    )
  }

  const run = (held: HeldDelivery) =>
    Effect.runForkWith(Context.add(services, Scope.Scope, held.scope))(handling.handle(held))

  const start = (held: HeldDelivery) => {
    if (held.expiresAtMillis !== Infinity && held.expiresAtMillis <= monotonicMillis(clock)) return expire(held)
    held.phase = "running"
    if (++running >= concurrency) someWait.openUnsafe()
    // Reading the clock costs more than the rest of this function: so only some handlers are timed, and handlers that start together share a time.
    held.isTimed = starts < alwaysTimed || starts % timedOneIn === 0
    if (held.isTimed) startingAt = clock.monotonicTimeNanosUnsafe()
    held.startedAt = startingAt
    starts++
    const fiber = Activity.enter(held, run, held)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      // It may have blocked the process, and the next delivery may belong to another consumer by now.
      startingAt = clock.monotonicTimeNanosUnsafe()
      return finished(held, exit)
    }
    held.fiber = fiber
    live.add(held)
    if (isClosing) moved()
    fiber.addObserver((exit) => finished(held, exit))
  }

  const pump = () => {
    if (isPumping || queue.size === 0) return
    if (running >= concurrency) return void someWait.openUnsafe()
    isPumping = true
    startingAt = clock.monotonicTimeNanosUnsafe()
    const overdue: Array<HeldDelivery> = []
    let stopped: Set<ShardConsumer> | undefined
    while (running + trials.places() < concurrency && queue.size > 0 && !isPaused && !isClosing) {
      const held = queue.shift()
      if (held.phase !== "waiting") continue
      // The lease has passed, because this process was frozen or cut off: another consumer may have the delivery. It waits for the renewal, and so
      // does all that came after it from its shard.
      if (startingAt >= held.leasedUntil || stopped?.has(held.shard) === true) {
        stopped = (stopped ?? new Set()).add(held.shard)
        held.shard.overdue.openUnsafe()
        overdue.push(held)
      } else start(held)
    }
    if (overdue.length > 0) queue.putBack(overdue)
    if (queue.size > 0) someWait.openUnsafe()
    isPumping = false
  }

  const trials = yield* Trials.make({
    clock,
    room: () => isPaused || isClosing ? 0 : concurrency - running,
    start: (held) => {
      startingAt = clock.monotonicTimeNanosUnsafe()
      start(held)
    },
    lose
  })

  /** Lets a delivery wait for its handler. */
  const line = (held: HeldDelivery) => {
    if (held.delivery.isSuspect) trials.add(held)
    else queue.push(held)
  }

  const gates = new Map<ShardConsumer, OnceGate.OnceGate<R>>()
  const { keyOf } = handling
  if (keyOf !== undefined) {
    for (const shard of shards) {
      gates.set(
        shard,
        OnceGate.make(shard.member, keyOf, {
          end: enqueue,
          begun: (held, begun) => {
            if (begun === "mine") {
              line(held)
              startWaiting()
            } else enqueue(held, begun === "done" ? duplicateSettlement : later(held.delivery, leaseMillis))
          }
        })
      )
    }
  }

  const giveBackWaiting = () => {
    const fresh = [...gates.values()].flatMap((gate) => gate.clear())
    for (const held of [...fresh, ...trials.clear(), ...queue.waiting]) if (held.phase === "waiting") giveBack(held)
    queue.clear()
  }

  const startWaiting = () => isClosing || isPaused ? giveBackWaiting() : pump()

  return {
    queue,
    times,
    live,
    someEnded,
    someWait,
    /** The number of handlers that run. */
    running: () => running,
    /** The number of handlers that have ended so far. */
    endedHandlers: () => endedHandlers,
    /** The number of handlers that run, or are about to. */
    busy: () => running + queue.size + trials.places(),
    isPaused: () => isPaused,
    isClosing: () => isClosing,
    /** Takes a delivery that is held. Call `startWaiting` after the last one. */
    add: (held: HeldDelivery) => {
      const gate = gates.get(held.shard)
      if (gate === undefined) line(held)
      else gate.add(held)
    },
    /** Starts as many deliveries as there is room for. While the consumer is paused, or ends, it gives all of them back. */
    startWaiting,
    pump,
    /** Notes how long the handler of a delivery took. */
    timed,
    /** Forgets a delivery that has left this process. */
    drop,
    /** Forgets a delivery whose lease is lost, and interrupts its handler. */
    lose,
    pause: () => {
      isPaused = true
      giveBackWaiting()
    },
    resume: () => {
      isPaused = false
      trials.wake()
      pump()
    },
    /** Starts nothing from now on, and gives back all deliveries that wait. */
    close: () => {
      isClosing = true
      giveBackWaiting()
    },
    resetTimes: () => {
      times.reset()
      starts = 0
    },
    beginSuspects: trials.next,
    /** Begins deliveries of one shard by their keys; `undefined` without keys. */
    beginOnce: (shard: ShardConsumer) => gates.get(shard)?.next
  }
})
