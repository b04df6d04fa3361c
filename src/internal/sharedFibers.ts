/** Fibers that several users share: the first one starts the fiber of a key, and the end of the last one interrupts it. */
import type { Scope } from "effect"
import { Effect, Fiber } from "effect"

export type SharedFibers<K> = Map<K, { users: number; readonly fiber: Fiber.Fiber<unknown> }>

/** Uses the fiber of a key until the end of the current scope. */
export const use = Effect.fnUntraced(function*<K>(
  running: SharedFibers<K>,
  key: K,
  run: Effect.Effect<unknown>
): Effect.fn.Return<void, never, Scope.Scope> {
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const begin = Effect.sync(() => {
    const shared = running.get(key)
    if (shared !== undefined) shared.users++
    else running.set(key, { users: 1, fiber: fork(run) })
  })
  yield* Effect.acquireRelease(begin, () => {
    const shared = running.get(key)
    if (shared === undefined || --shared.users > 0) return Effect.void
    running.delete(key)
    return Fiber.interrupt(shared.fiber)
  })
})
