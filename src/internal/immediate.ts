/** Effects that have their result already: what is done at once needs no fiber, which would take longer than the work itself. */
import type { Effect } from "effect"
import { Exit } from "effect"

export const isDone = <A, E, R>(effect: Effect.Effect<A, E, R>): effect is Exit.Success<A> =>
  Exit.isExit(effect) && Exit.isSuccess(effect)
