/**
 * Workers: loops that run one handler at a time. At their end they take no more work; a handler that runs may finish, and is interrupted after a
 * time.
 */
import type { Fiber } from "effect"
import { Effect, Exit, Scope } from "effect"
import { Activity, inside, outside } from "./activity.ts"
import * as Ending from "./ending.ts"

export interface Options<R> {
  /** How long the end waits for running handlers before it interrupts them. */
  readonly drainMillis: number
  readonly loops: (wrappers: Wrappers) => ReadonlyArray<Effect.Effect<never, never, R>>
  /** The last part of the end. */
  readonly leave?: Effect.Effect<void> | undefined
}

export interface Wrappers {
  /** Wraps one turn of a loop: after the end has begun there is no further one. */
  readonly turn: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Wraps work that the end has to wait for, with the handler of a user. */
  readonly work: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Starts workers in the current scope. Its end is their end. */
export const start = Effect.fnUntraced(function*<R>(
  { drainMillis, leave = Effect.void, loops }: Options<R>
): Effect.fn.Return<Ending.Ending, never, R | Scope.Scope> {
  const own = yield* Scope.make()
  const guard = yield* Scope.fork(yield* Effect.scope)
  const { moved, within } = Ending.makeWait()
  const working = new Map<Activity, Fiber.Fiber<unknown, unknown>>()
  const fibers = new Set<Fiber.Fiber<unknown, unknown>>()
  let isOver = false
  let isLeft = false

  const isAwaited = (activity: Activity) => activity.asks === 0
  const awaited = () => [...working.keys()].filter(isAwaited)

  const turn = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => ending.hasBegun() ? Effect.never : effect)

  const work = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) => {
      const activity = new Activity()
      working.set(activity, fiber)
      return Effect.ensuring(
        inside(activity, effect),
        Effect.sync(() => {
          working.delete(activity)
          if (!ending.hasBegun()) return
          moved()
          Ending.changed()
        })
      )
    })

  const finish = Effect.fnUntraced(function*(millis: number, left: () => ReadonlyArray<Activity>) {
    if (yield* within(millis, () => left().length === 0)) return
    for (const activity of left()) working.get(activity)!.interruptUnsafe()
    yield* within(Ending.endMillis, () => left().length === 0)
  })

  const ending: Ending.Ending = yield* Ending.make({
    run: Effect.gen(function*() {
      const busy = new Set(working.values())
      for (const fiber of fibers) if (!busy.has(fiber)) fiber.interruptUnsafe()
      yield* finish(drainMillis, awaited)
      isLeft = true
      Ending.changed()
      yield* finish(Math.max(drainMillis, Ending.endMillis), () => [...working.keys()])
      isOver = true
      yield* Scope.close(own, Exit.void)
      yield* leave
      yield* Scope.close(guard, Exit.void)
    }),
    isLeftToAskers: () => isLeft && awaited().length === 0
  })

  yield* outside(
    Effect.forEach(loops({ turn, work }), (loop) => Effect.map(Effect.forkIn(loop, own), (fiber) => fibers.add(fiber)))
  )
  yield* Scope.addFinalizer(guard, Effect.suspend(() => isOver ? Effect.void : ending.ask))
  return ending
})
