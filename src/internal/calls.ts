/**
 * Calls that have begun: an end waits for them before it takes away what they need, and refuses those that come later.
 */
import { Effect } from "effect"
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
