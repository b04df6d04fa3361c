/**
 * Activities: attempts of handlers, and calls that have begun. An end waits for them. Code that runs inside of an activity is recognised
 * everywhere: in fibers that it forks, behind Promises, in other runtimes.
 */
import { Context, Effect, Fiber } from "effect"
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

const run = <A, E, R>(activity: Activity | undefined, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.callback<A, E>((resume) => {
      const fiber = enter(activity, Effect.runForkWith(context), effect)
      fiber.addObserver((exit) => {
        if (activity !== undefined) activity.isOver = true
        resume(exit)
      })
      return Fiber.interrupt(fiber)
    })
  )

/** Runs an effect inside of an activity, which ends with it. */
export const inside: <A, E, R>(activity: Activity, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> = run

/**
 * The publishers in whose publishing hooks this code runs. A message that such a hook publishes by the same Rotif goes through no hooks, which
 * would never end. The hooks of another Rotif still run.
 */
export const InHook = Context.Reference<ReadonlyArray<object>>("rotif/Middleware/InHook", { defaultValue: () => [] })

/**
 * Starts a subscription, outside of the activity and of the hooks in which it is made: it outlives them, and its handlers are no part of them.
 */
export const outside = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(
    Effect.suspend(() => storage.getStore() === undefined ? effect : run(undefined, effect)),
    InHook,
    []
  )

/** Runs an effect outside of all activities: it outlives its caller. */
export const detach = <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> =>
  storage.run(undefined, () => Effect.runFork(effect))
