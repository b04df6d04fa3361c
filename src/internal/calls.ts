/**
 * Calls that have begun: an end waits for them before it takes away what they need, and refuses those that come later.
 */
import type { Scope } from "effect"
import { Effect } from "effect"
import { BrokerError } from "../Broker.ts"
import * as Activity from "./activity.ts"
import * as Ending from "./ending.ts"

/** An end waits for calls that have begun for at most this long. */
export const callsMillis = 10_000

/** The same while there is no connection yet: most likely there will be none. */
export const startMillis = 3_000

export interface Calls {
  /** Runs a call, or fails with `refusal` when it comes too late. What a handler that still runs calls never comes too late. */
  readonly run: <A, E, R, E2>(effect: Effect.Effect<A, E, R>, refusal: () => E2) => Effect.Effect<A, E | E2, R>
  /** From now on calls are refused. */
  readonly close: () => void
  /** Waits until those that have begun are over, at most so long. */
  readonly over: (millis: number) => Effect.Effect<void>
  /** Nothing is left but calls that wait for an end themselves, or belong to a handler that does. */
  readonly isLeftToAskers: () => boolean
}

export const make = (): Calls => {
  const begun = new Set<Activity.Activity>()
  const { moved, within } = Ending.makeWait()
  let isClosed = false
  return {
    run: <A, E, R, E2>(effect: Effect.Effect<A, E, R>, refusal: () => E2) =>
      Effect.suspend((): Effect.Effect<A, E | E2, R> => {
        const inside = Activity.current()
        if (isClosed && inside === undefined) return Effect.fail(refusal())
        const call = new Activity.Activity(inside)
        begun.add(call)
        return Effect.ensuring(
          Activity.inside(call, effect),
          Effect.sync(() => {
            begun.delete(call)
            if (!isClosed) return
            moved()
            Ending.changed()
          })
        )
      }),
    close: () => {
      isClosed = true
    },
    over: (millis) => Effect.asVoid(within(millis, () => begun.size === 0)),
    isLeftToAskers: () => [...begun].every(({ asks }) => asks > 0)
  }
}

/** Runs a call of a service, or refuses it when the layer of the service has ended. */
export type Run = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BrokerError, R>

/**
 * For the calls of a service: the end of its layer waits for those that have begun, for at most 10 seconds, and refuses those that come later.
 * It is cheaper than `make`: what runs inside of such a call is not told from what does not.
 */
export const ofLayer = (service: string): Effect.Effect<Run, never, Scope.Scope> =>
  Effect.suspend(() => {
    const { moved, within } = Ending.makeWait()
    let begun = 0
    let isClosed = false
    const over = () => {
      begun--
      if (isClosed) moved()
      return undefined
    }
    const refused = Effect.suspend(() =>
      Effect.fail(
        new BrokerError({
          reason: "Stopped",
          operation: service,
          message: `the layer of Rotif has ended, and its ${service} with it: nothing was done`
        })
      )
    )
    const run: Run = (effect) =>
      Effect.suspend(() => {
        // A handler that still runs may go on.
        if (isClosed && Activity.current() === undefined) return refused
        begun++
        return Effect.onExitPrimitive(effect, over)
      })
    return Effect.as(
      Effect.addFinalizer(() =>
        Effect.suspend(() => {
          isClosed = true
          // One that ends it from inside of a handler must not wait for itself.
          return Activity.current() === undefined ? within(callsMillis, () => begun === 0) : Effect.void
        })
      ),
      run
    )
  })

/** The same service with these of its calls, functions or effects, run so. */
export const guard = <S extends object>(run: Run, service: S, names: ReadonlyArray<keyof S & string>): S => {
  const guarded = new Map<string, unknown>(Object.entries(service))
  for (const name of names) {
    const call: unknown = service[name]
    guarded.set(
      name,
      typeof call === "function"
        ? (...args: ReadonlyArray<unknown>) => run(call(...args) as Effect.Effect<unknown>)
        : run(call as Effect.Effect<unknown>)
    )
  }
  // Each call fails with a `BrokerError` already.
  return Object.fromEntries(guarded) as S
}
