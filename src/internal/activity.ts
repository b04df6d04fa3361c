/**
 * What an end has to wait for: attempts of handlers, and calls that have begun. All code that runs inside of one is known by it, wherever
 * it goes: in fibers that it forks, behind Promises, in other runtimes.
 */
import type { Context } from "effect"
import { Effect, Fiber } from "effect"
import { AsyncLocalStorage } from "node:async_hooks"

export class Activity {
  /** What it is a part of. */
  readonly within: Activity | undefined
  /** How many ends are waited for from inside of it. An end must not wait for what waits for an end. */
  asks = 0
  isOver = false

  constructor(within?: Activity) {
    this.within = within
  }
}

const storage = new AsyncLocalStorage<Activity | undefined>()

/** Runs code inside of an activity; of none: what it starts outlives the activity it is called from. */
export const enter = <A, B>(activity: Activity | undefined, code: (argument: A) => B, argument: A): B =>
  storage.run(activity, code, argument)

/** The innermost activity that this code is a part of, and that is not over. */
export const current = (): Activity | undefined => {
  let activity = storage.getStore()
  while (activity?.isOver === true) activity = activity.within
  return activity
}

/** Runs an effect inside of an activity, which is over with it. */
export const inside = <A, E, R>(activity: Activity, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<A, E>((resume) => {
      const fiber = enter(activity, Effect.runForkWith(context), effect)
      fiber.addObserver((exit) => {
        activity.isOver = true
        resume(exit)
      })
      return Fiber.interrupt(fiber)
    })
  )

/** Runs what outlives whatever asked for it. */
export const detach = <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> =>
  storage.run(undefined, () => Effect.runFork(effect))
