/**
 * Attempts of batches: deliveries that wait are collected, and get one handler together.
 *
 * A batch takes the place of one handler, and as much of the capacity as a full batch, however small it is. So no more is held than full batches
 * could handle.
 */
import type { Clock } from "effect"
import { Cause, Effect, Exit, Latch, Scope } from "effect"
import type { HandlerOutcome } from "../internal/settlement.ts"
import { again, release } from "../internal/settlement.ts"
import type { Attempts } from "./attempts.ts"
import type { BatchSizes } from "./batchQueue.ts"
import { BatchQueue } from "./batchQueue.ts"
import type { Capacity } from "./capacity.ts"
import type { HeldDelivery, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, HeldBatch } from "./heldDelivery.ts"

/** The outcome of each delivery of a batch, in their order. */
export type Outcomes = ReadonlyArray<HandlerOutcome>

/** The handling of a batch. */
export interface Handling<R> {
  readonly _tag: "Batches"
  readonly sizes: BatchSizes
  /** Whether a batch is settled as a whole. */
  readonly isWhole: boolean
  /** Handles a batch. It runs with the scope of the batch, and closes it. */
  readonly handle: (batch: HeldBatch) => Effect.Effect<Outcomes, never, R | Scope.Scope>
  /** The verdicts on a batch whose fiber died outside of `handle`. */
  readonly verdict: (batch: HeldBatch, cause: Cause.Cause<never>) => Effect.Effect<Outcomes, never, R | Scope.Scope>
}

export interface Options<R> {
  readonly attempts: Attempts<R>
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly handling: Handling<R>
  /** The number of handlers that may be started. */
  readonly room: () => number
  /** The number of places that are kept free for suspects. */
  readonly kept: () => number
}

export const make = <R>({ attempts, capacity, clock, handling, kept, room }: Options<R>) => {
  const { size } = handling.sizes
  const queue = new BatchQueue(handling.sizes)
  /** Open when a batch may begin earlier than was expected. */
  const changed = Latch.makeUnsafe(false)
  /** When the fiber that waits for it looks again. */
  let expectedAt: bigint | undefined
  let isPumping = false
  /** Deliveries wait for a renewal, which calls `pump`. */
  let isOverdue = false

  const settle = (batch: HeldBatch, outcomeOf: (held: HeldDelivery, index: number) => HandlerOutcome) => {
    for (const [i, held] of batch.deliveries.entries()) {
      if (held.phase !== "running") continue
      const outcome = outcomeOf(held, i)
      if (outcome._tag !== "Hold") enqueue(held, outcome)
    }
  }

  /** The fiber of a handler has died outside of `handle`: its scope is open, and there are no verdicts yet. */
  const died = (batch: HeldBatch, exit: Exit.Failure<unknown, never>) => {
    const { cause } = exit
    const fiber = attempts.fork(batch, Effect.andThen(Scope.close(batch.scope, exit), handling.verdict(batch, cause)))
    fiber.addObserver((verdicts) =>
      settle(
        batch,
        (held, i) => (Exit.isSuccess(verdicts) ? verdicts.value[i] : undefined) ?? attempts.withoutVerdict(cause, held)
      )
    )
  }

  const run = (batch: HeldBatch) => attempts.fork(batch, handling.handle(batch))

  const finished = (batch: HeldBatch, exit: Exit.Exit<Outcomes>) => {
    attempts.free(batch)
    capacity.unblock(size - batch.deliveries.length)
    attempts.timed(batch.deliveries[0]!)
    if (Exit.isSuccess(exit)) {
      settle(batch, (held, i) => exit.value[i] ?? attempts.withoutVerdict(Cause.empty, held))
    } else if (Cause.hasInterruptsOnly(exit.cause)) {
      // At the end of the consumer another one gets them at once; a handler that interrupts itself is paced.
      settle(batch, ({ delivery }) => attempts.isClosing ? release(delivery) : again(delivery, 0, "interrupted"))
    } else died(batch, exit)
    attempts.over()
  }

  const start = (deliveries: ReadonlyArray<HeldDelivery>) => {
    const batch = new HeldBatch(deliveries, handling.isWhole)
    for (const held of deliveries) {
      held.phase = "running"
      held.batch = batch
    }
    capacity.block(size - deliveries.length)
    // One of them stands for the batch where its time is told.
    const first = deliveries[0]!
    first.isTimed = true
    first.startedAt = clock.monotonicTimeNanosUnsafe()
    attempts.begin(batch, run, finished)
  }

  // Suspects that begin together share a handler; one that is tried alone has its own.
  const free = () => room() - Math.min(1, kept())
  const nextAt = () => free() > 0 && !isOverdue ? queue.dueAt : undefined

  /** Starts the batches that begin now, as far as there is room. */
  const pump = () => {
    if (isPumping || queue.size === 0) return
    if (attempts.isBusy) return void attempts.someWait.openUnsafe()
    isPumping = true
    const now = clock.monotonicTimeNanosUnsafe()
    const overdue: Array<HeldDelivery> = []
    const stopped = new Set<ShardConsumer>()
    const admit = (held: HeldDelivery): boolean => {
      if (held.phase !== "waiting") return false
      // Another consumer may have the delivery: it waits for the renewal, and so does all that came after it from its shard.
      if (now < held.leasedUntil && !stopped.has(held.shard)) return !attempts.expires(held)
      stopped.add(held.shard)
      held.shard.overdue.openUnsafe()
      overdue.push(held)
      return false
    }
    while (free() > 0) {
      const batch = queue.take(now, admit)
      if (batch === undefined) break
      start(batch)
    }
    isOverdue = overdue.length > 0
    if (isOverdue) queue.putBack(overdue)
    isPumping = false
    if (queue.size > 0 && attempts.isBusy) attempts.someWait.openUnsafe()
    const due = nextAt()
    if (due !== undefined && (expectedAt === undefined || due < expectedAt)) changed.openUnsafe()
  }

  return {
    queue,
    pump,
    /** Starts a suspect: alone if it may have crashed a consumer. */
    start: (held: HeldDelivery) => {
      if (held.delivery.crashes > 0) return start([held])
      queue.push(held)
      pump()
    },
    /** The delivery that has waited longest for a handler. Those that are collected do not wait for one. */
    oldest: () => attempts.isBusy ? queue.oldest : undefined,
    resetTimes: () => {},
    /** The number of messages that a handler can have. */
    perHandler: size,
    /** Waits until a batch begins that is not full, and starts it. One fiber runs it again and again. */
    next: Effect.gen(function*() {
      changed.closeUnsafe()
      expectedAt = nextAt()
      if (expectedAt === undefined) yield* changed.await
      else {
        const millis = Math.ceil(Number(expectedAt - clock.monotonicTimeNanosUnsafe()) / 1e6)
        yield* Effect.timeoutOption(changed.await, Math.max(1, millis))
      }
      expectedAt = undefined
      pump()
    })
  }
}
