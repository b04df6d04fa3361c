/**
 * Attempts: the handlers that run, each of one delivery or of a batch. Each has a fiber of its own from its start to its outcome, which settles
 * what it had.
 *
 * On the way of a message there is no Stream operator, no queue of Effect's and no fiber but the handler's own.
 */
import type { Cause, Clock, Exit, Fiber } from "effect"
import { Context, Effect, Latch, Scope } from "effect"
import * as Activity from "../internal/activity.ts"
import type { Reporter } from "../internal/reports.ts"
import type { Settlement } from "../internal/settlement.ts"
import { expiredSettlement, release } from "../internal/settlement.ts"
import { slowest } from "../internal/supervise.ts"
import { monotonicMillis } from "../internal/times.ts"
import type { Capacity } from "./capacity.ts"
import { HandlerTimes } from "./handlerTimes.ts"
import type { Counts, Handled, HeldDelivery, Settled } from "./heldDelivery.ts"
import { abandon, enqueue } from "./heldDelivery.ts"

export interface Options {
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly counts: Counts
  /** What happens to a message whose time to live has ended. */
  readonly expired: "dead-letter" | "drop"
  readonly reporter: Reporter
  /** Called while the consumer ends: a handler has begun or ended, or a delivery has left this process. */
  readonly moved: () => void
}

export class Attempts<R> {
  readonly times = new HandlerTimes()
  /** Running handlers, without those that end at once. */
  readonly live = new Set<Handled>()
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
  /** Called when a handler has ended: there is room for another one. */
  onRoom: () => void = () => {}
  /** Called when a suspect has left this process. */
  onSuspectLeft: (held: HeldDelivery) => void = () => {}
  readonly #options: Options
  readonly #services: Context.Context<R>

  constructor(options: Options, services: Context.Context<R>) {
    this.#options = options
    this.#services = services
  }

  /** Whether all handlers run. */
  get isBusy(): boolean {
    return this.running >= this.#options.capacity.concurrency
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
    abandon(held)
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

  /** Runs an effect with the services of the consumer, and with the scope of an attempt. */
  fork<A>(handled: Handled, effect: Effect.Effect<A, never, R | Scope.Scope>): Fiber.Fiber<A> {
    return Effect.runForkWith(Context.add(this.#services, Scope.Scope, handled.scope))(effect)
  }

  /** Starts a handler. `finished` settles what it had, by its outcome, and calls `over`. */
  begin<H extends Handled, A>(
    handled: H,
    run: (handled: H) => Fiber.Fiber<A>,
    finished: (handled: H, exit: Exit.Exit<A>) => void
  ): void {
    this.running++
    if (this.isBusy) this.someWait.openUnsafe()
    const fiber = Activity.enter(handled, run, handled)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return finished(handled, exit)
    handled.fiber = fiber as Fiber.Fiber<unknown>
    this.live.add(handled)
    if (this.isClosing) this.#options.moved()
    fiber.addObserver((exit) => finished(handled, exit))
  }

  /** Frees the place of a handler that has ended. */
  free(handled: Handled): void {
    this.running--
    this.ended++
    if (this.#options.capacity.ended()) this.someEnded.openUnsafe()
    handled.isOver = true
    if (handled.fiber === undefined) return
    handled.fiber = undefined
    this.live.delete(handled)
  }

  /** To be called when what an ended handler had is settled. */
  over(): void {
    if (this.isClosing) this.#options.moved()
    this.onRoom()
  }

  /** Settles a delivery whose time to live has ended. Returns whether it has. */
  expires(held: HeldDelivery): boolean {
    const { clock, counts, expired } = this.#options
    if (held.expiresAtMillis === Infinity || held.expiresAtMillis > monotonicMillis(clock)) return false
    counts.expired++
    enqueue(
      held,
      expired === "drop"
        ? expiredSettlement
        : { _tag: "Bury", failure: { reason: "expired", message: "its time to live ended before it was handled" } }
    )
    return true
  }

  /** The settlement of a delivery without a verdict, which is a mistake in Rotif: it must not become a busy loop. */
  withoutVerdict(cause: Cause.Cause<never>, { delivery }: HeldDelivery): Settlement {
    this.#options.reporter.noVerdict(delivery, cause)
    return { ...release(delivery), delayMillis: slowest }
  }
}
