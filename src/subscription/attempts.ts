/**
 * Attempts: the handlers that run. Each has a fiber of its own from its start to its outcome, which settles the delivery.
 *
 * On the way of a message there is no Stream operator, no queue of Effect's and no fiber but the handler's own.
 */
import type { Clock } from "effect"
import { Cause, Context, Effect, Exit, Latch, Scope } from "effect"
import * as Activity from "../internal/activity.ts"
import type { Reporter } from "../internal/reports.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { again, expiredSettlement, release } from "../internal/settlement.ts"
import { slowest } from "../internal/supervise.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import { HandlerTimes } from "./handlerTimes.ts"
import type { Counts, HeldDelivery, Settled } from "./heldDelivery.ts"
import { enqueue } from "./heldDelivery.ts"
import type * as OnceGate from "./onceGate.ts"

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
  readonly reporter: Reporter
  /** Called while the consumer ends: a handler has begun or ended, or a delivery has left this process. */
  readonly moved: () => void
}

export class Attempts<R> {
  readonly times = new HandlerTimes()
  /** Running handlers, without those that end at once. */
  readonly live = new Set<HeldDelivery>()
  /** Open when a handler has ended since nothing more was fetched in advance. */
  readonly someEnded = Latch.makeUnsafe(false)
  /** Open when something waits for a handler, or all places are taken. */
  readonly someWait = Latch.makeUnsafe(false)
  /** The number of handlers that run. */
  running = 0
  /** The number of handlers that have ended so far. */
  ended = 0
  /** The consumer ends: nothing starts any more. */
  isClosing = false
  /** About now, while handlers are being started. */
  startingAt: bigint
  /** Called when a handler has ended: there is room for another one. */
  onRoom: () => void = () => {}
  /** Called when a suspect has left this process. */
  onSuspectLeft: (held: HeldDelivery) => void = () => {}
  readonly #options: Options<R>
  readonly #services: Context.Context<R>
  #starts = 0

  constructor(options: Options<R>, services: Context.Context<R>) {
    this.#options = options
    this.#services = services
    this.startingAt = options.clock.monotonicTimeNanosUnsafe()
  }

  /** Forgets a delivery that has left this process. */
  readonly drop = (held: HeldDelivery, outcome: Settled): void => {
    const { capacity, moved } = this.#options
    held.phase = "gone"
    held.outcome = outcome
    held.shard.held.delete(held)
    capacity.drop()
    if (held.delivery.isSuspect) this.onSuspectLeft(held)
    const waiters = held.waiters
    held.waiters = undefined
    if (waiters !== undefined) { for (const waiter of waiters) waiter(outcome) }
    if (this.isClosing) moved()
  }

  /** Forgets a delivery whose lease is lost, and interrupts its handler: another consumer has the message by now. */
  readonly lose = (held: HeldDelivery): void => {
    if (held.phase === "gone") return
    this.#options.counts.lostLeases++
    this.#options.reporter.leaseLost(held.delivery)
    this.drop(held, "lost")
    held.fiber?.interruptUnsafe()
  }

  /** Notes how long the handler of a delivery took. */
  readonly timed = (held: HeldDelivery): void => {
    const { startedAt } = held
    held.startedAt = undefined
    if (startedAt === undefined || !held.isTimed) return
    const nanos = Number(this.#options.clock.monotonicTimeNanosUnsafe() - startedAt)
    this.times.record(nanos)
    this.#options.capacity.measured(nanos / 1e6)
  }

  resetTimes(): void {
    this.times.reset()
    this.#starts = 0
  }

  /** Reads the clock: it takes more time than the rest of a start, so handlers that start together share a time. */
  readClock(): void {
    this.startingAt = this.#options.clock.monotonicTimeNanosUnsafe()
  }

  /** Starts the handler of a delivery, unless its time to live has ended. */
  start(held: HeldDelivery): void {
    const { capacity, clock, moved } = this.#options
    if (held.expiresAtMillis !== Infinity && held.expiresAtMillis <= monotonicMillis(clock)) return this.#expire(held)
    held.phase = "running"
    if (++this.running >= capacity.concurrency) this.someWait.openUnsafe()
    held.isTimed = this.#starts < alwaysTimed || this.#starts % timedOneIn === 0
    if (held.isTimed) this.readClock()
    held.startedAt = this.startingAt
    this.#starts++
    const fiber = Activity.enter(held, this.#run, held)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      // It may have blocked the process, and the next delivery may belong to another consumer by now.
      this.readClock()
      return this.#finished(held, exit)
    }
    held.fiber = fiber
    this.live.add(held)
    if (this.isClosing) moved()
    fiber.addObserver((exit) => this.#finished(held, exit))
  }

  readonly #run = (held: HeldDelivery) =>
    Effect.runForkWith(Context.add(this.#services, Scope.Scope, held.scope))(this.#options.handling.handle(held))

  #expire(held: HeldDelivery): void {
    this.#options.counts.expired++
    enqueue(
      held,
      this.#options.handling.expired === "drop"
        ? expiredSettlement
        : { _tag: "Bury", failure: { reason: "expired", message: "its time to live ended before it was handled" } }
    )
  }

  #finished(held: HeldDelivery, exit: Exit.Exit<HandlerOutcome>): void {
    this.running--
    this.ended++
    if (this.#options.capacity.ended()) this.someEnded.openUnsafe()
    held.isOver = true
    if (held.fiber !== undefined) {
      held.fiber = undefined
      this.live.delete(held)
    }
    // A handler that leaves its message open is timed until the message is settled.
    if (held.phase !== "running" || Exit.isFailure(exit) || exit.value._tag !== "Hold") this.timed(held)
    if (held.phase === "running") {
      if (Exit.isFailure(exit)) {
        const isInterrupted = Cause.hasInterruptsOnly(exit.cause)
        // At the end of the consumer another one gets it at once; a handler that interrupts itself is paced.
        if (isInterrupted) {
          enqueue(held, this.isClosing ? release(held.delivery) : again(held.delivery, 0, "interrupted"))
        } else this.#died(held, exit)
      } else if (exit.value._tag === "Hold") held.phase = "open"
      else enqueue(held, exit.value)
    }
    if (this.isClosing) this.#options.moved()
    this.onRoom()
  }

  /** The fiber of a handler has died outside of `handle`: its scope is open, and there is no verdict yet. */
  #died(held: HeldDelivery, exit: Exit.Failure<HandlerOutcome, never>): void {
    const fiber = Effect.runForkWith(Context.add(this.#services, Scope.Scope, held.scope))(
      Effect.andThen(Scope.close(held.scope, exit), this.#options.handling.verdict(held, exit.cause))
    )
    fiber.addObserver((verdict) => {
      if (held.phase !== "running") return
      const isSettled = Exit.isSuccess(verdict) && verdict.value._tag !== "Hold"
      enqueue(held, isSettled ? verdict.value as Settlement : this.#withoutVerdict(exit.cause, held))
    })
  }

  /** The settlement of a delivery without a verdict, which is a mistake in Rotif: it must not become a busy loop. */
  #withoutVerdict(cause: Cause.Cause<never>, { delivery }: HeldDelivery): Settlement {
    this.#options.reporter.noVerdict(delivery, cause)
    return { ...release(delivery), delayMillis: slowest }
  }
}
