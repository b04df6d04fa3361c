/**
 * Calls in progress: an end waits for them before it closes what they use, and refuses later calls.
 */
import type { Scope } from "effect"
import { Effect } from "effect"
import { BrokerError } from "../Broker.ts"
import * as Activity from "./activity.ts"
import * as Ending from "./ending.ts"

/** An end waits for calls in progress for at most this long. */
export const callsMillis = 10_000

/** The same while there is no connection yet: probably there will be none. */
export const startMillis = 3_000

export const make = () => {
  const begun = new Set<Activity.Activity>()
  const { moved, within } = Ending.makeWait()
  let isClosed = false
  return {
    /** Runs a call, or fails with `refusal` if it is too late. A call of a handler that still runs is never too late. */
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
    /** Refuses calls from now on. */
    close: (): void => {
      isClosed = true
    },
    /** Waits for the calls in progress, for at most this long. */
    over: (millis: number): Effect.Effect<void> => Effect.asVoid(within(millis, () => begun.size === 0)),
    /** Whether only calls are left that wait for an end themselves, or belong to a handler that does. */
    isLeftToAskers: (): boolean => [...begun].every(({ asks }) => asks > 0)
  }
}

/** Runs a call of a service, or refuses it if the layer of the service has ended. */
export type Run = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BrokerError, R>

/**
 * Runs the calls of a service: the end of its layer waits for the calls in progress, for at most 10 seconds, and refuses later ones. It is cheaper
 * than `make`, because it does not track what runs inside of a call.
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
        // A handler that still runs may continue.
        if (isClosed && Activity.current() === undefined) return refused
        begun++
        return Effect.onExitPrimitive(effect, over)
      })
    return Effect.as(
      Effect.addFinalizer(() =>
        Effect.suspend(() => {
          isClosed = true
          // A handler that ends the layer must not wait for itself.
          return Activity.current() === undefined ? within(callsMillis, () => begun === 0) : Effect.void
        })
      ),
      run
    )
  })

/** The same service, with its members (functions or effects) run by `run`, but for those that do not call the backend themselves. */
export const guard = <S extends object>(run: Run, service: S, except: ReadonlyArray<keyof S & string> = []): S => {
  const guarded = Object.entries(service).map(([name, call]: [string, unknown]) =>
    (except as ReadonlyArray<string>).includes(name)
      ? [name, call]
      : typeof call === "function"
      ? [name, (...args: ReadonlyArray<unknown>) => run(call(...args) as Effect.Effect<unknown>)]
      : [name, run(call as Effect.Effect<unknown>)]
  )
  // Each of these members can fail with a `BrokerError` already.
  return Object.fromEntries(guarded) as S
}
