/**
 * Activities: attempts of handlers, and calls that have begun. An end waits for them. Code that runs inside of an activity is recognised
 * everywhere: in fibers that it forks, behind Promises, in other runtimes.
 */
import type { Context } from "effect"
import { Effect, Fiber } from "effect"
import { AsyncLocalStorage } from "node:async_hooks"

export class Activity {
  /** The activity that it is a part of. */
  readonly within: Activity | undefined
  /** The number of ends that are waited for from inside of it. An end must not wait for an activity that waits for an end. */
  asks = 0
  isOver = false

  constructor(within?: Activity) {
    this.within = within
  }
}

const storage = new AsyncLocalStorage<Activity | undefined>()

/** Runs code inside of an activity, or of none: then the code outlives the activity that calls it. */
export const enter = <A, B>(activity: Activity | undefined, code: (argument: A) => B, argument: A): B =>
  storage.run(activity, code, argument)

/** Finds the innermost activity that this code is a part of, and that is not over. */
export const current = (): Activity | undefined => {
  let activity = storage.getStore()
  while (activity?.isOver === true) activity = activity.within
  return activity
}

/** Runs an effect inside of an activity, which ends with it. */
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

/** Runs an effect outside of all activities: it outlives its caller. */
export const detach = <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> =>
  storage.run(undefined, () => Effect.runFork(effect))
