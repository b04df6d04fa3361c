/**
 * The end of a consumer: it takes no more deliveries, lets handlers finish, sends settlements, gives the rest back, and leaves the group. A
 * consumer whose group is removed ends by itself.
 */
import { Effect, Fiber } from "effect"
import type { BrokerError, GroupRemoved } from "../Broker.ts"
import * as Activity from "../internal/activity.ts"
import * as Ending from "../internal/ending.ts"
import type { Attempts } from "./attempts.ts"
import type { Handled, HeldDelivery, ShardConsumer } from "./heldDelivery.ts"
import { abandon, giveBack, handledWith } from "./heldDelivery.ts"

export interface Background {
  readonly shard: ShardConsumer
  readonly reader: Fiber.Fiber<unknown>
  readonly claimer: Fiber.Fiber<unknown>
  readonly rest: ReadonlyArray<Fiber.Fiber<unknown>>
}

export interface Options {
  readonly label: string
  readonly drainMillis: number
  readonly shards: ReadonlyArray<ShardConsumer>
  readonly background: () => ReadonlyArray<Background>
  readonly attempts: Pick<Attempts<never>, "drop" | "live" | "running">
  /** The first step, done at once: nothing is started from now on, and waiting deliveries are given back. */
  readonly begin: () => void
  /** The last step. */
  readonly leave: Effect.Effect<void>
}

export type ConsumerEnd = Effect.Success<ReturnType<typeof make>>

export const make = Effect.fnUntraced(function*(options: Options) {
  const { attempts, background, drainMillis, label, shards } = options
  const { live } = attempts
  const { moved, within } = Ending.makeWait()
  /** Handlers that did not stop when they were interrupted: the end no longer waits for them. */
  const abandoned = new Set<Handled>()
  let isLeft = false

  /** Whether the end waits for a handler and its deliveries. It does not wait for a handler that waits for an end. */
  const isAwaited = (handled: Handled) => !abandoned.has(handled) && !(handled.asks > 0 && live.has(handled))
  const awaitedHandlers = () => {
    let others = attempts.running
    for (const handled of live) if (!isAwaited(handled)) others--
    return others
  }
  const handlers = () => attempts.running - abandoned.size
  const all = () => shards.flatMap((shard) => [...shard.held])
  const awaited = () => all().filter((held) => isAwaited(handledWith(held)))
  const open = () => all().filter((held) => !abandoned.has(handledWith(held)))

  const handlersEnd = Effect.fnUntraced(
    function*(millis: number, left: () => number, isMine: (handled: Handled) => boolean) {
      if (yield* within(millis, () => left() === 0)) return
      for (const handled of live) if (isMine(handled)) handled.fiber?.interruptUnsafe()
      if (yield* within(Ending.endMillis, () => left() === 0)) return
      yield* Effect.logWarning(
        `rotif: ${left()} handlers of ${label} did not stop when interrupted; their messages come back when their leases expire`
      )
      for (const handled of live) if (isMine(handled)) abandoned.add(handled)
    }
  )

  const settlementsEnd = Effect.fnUntraced(function*(left: () => ReadonlyArray<HeldDelivery>) {
    // Their handlers have ended, and nobody settles them.
    for (const held of left()) if (held.phase === "open") giveBack(held)
    if (yield* within(Ending.endMillis, () => left().length === 0)) return
    yield* Effect.logWarning(
      `rotif: ${left().length} settlements of ${label} could not be stored; these messages come back when their leases expire`
    )
    for (const held of left()) abandoned.add(handledWith(held))
  })

  const run = Effect.gen(function*() {
    yield* Effect.forEach(background(), ({ claimer }) => Fiber.interrupt(claimer), { discard: true })
    // A read is woken and finished, not cut off: deliveries in a lost answer would be stranded until their leases expire.
    yield* Effect.forEach(background(), ({ shard, reader }) =>
      Effect.gen(function*() {
        yield* shard.member.wake
        yield* Fiber.interrupt(reader)
      }), { concurrency: "unbounded", discard: true })
    yield* handlersEnd(drainMillis, awaitedHandlers, isAwaited)
    yield* settlementsEnd(awaited)
    isLeft = true
    Ending.changed()
    // Handlers that asked for the end have their answer now, and get time to finish.
    yield* handlersEnd(Math.max(drainMillis, Ending.endMillis), handlers, () => true)
    yield* settlementsEnd(open)
    yield* Effect.forEach(background(), ({ rest }) => Fiber.interruptAll(rest), { discard: true })
    yield* options.leave
  })

  const ending = yield* Ending.make({
    begin: options.begin,
    run,
    isLeftToAskers: () => isLeft && awaitedHandlers() === 0 && awaited().length === 0
  })

  let removed: GroupRemoved | undefined
  const groupRemoved = (error: GroupRemoved) =>
    Effect.suspend(() => {
      if (removed !== undefined) return Effect.void
      removed = error
      for (const held of all()) {
        attempts.drop(held, "lost")
        abandon(held)
      }
      Activity.detach(ending.ask)
      return Effect.logWarning(`rotif: ${error.message}`)
    })

  return {
    ending,
    /** To be called when a handler has ended, or a delivery has left this process. */
    moved: () => {
      if (!ending.hasBegun()) return
      moved()
      Ending.changed()
    },
    /** The error with which the consumer ended by itself. */
    removed: () => removed,
    /** Runs an operation that fails when the group is removed. Then all held deliveries are forgotten, and the consumer ends. */
    whileGroup: <A>(body: Effect.Effect<A, BrokerError | GroupRemoved>): Effect.Effect<A | void, BrokerError> =>
      Effect.catchTag(body, "GroupRemoved", groupRemoved)
  }
})
