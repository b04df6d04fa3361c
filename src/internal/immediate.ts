/** Detects effects that already have their result, to skip the cost of a fiber. */
import type { Effect } from "effect"
import { Exit } from "effect"

export const isDone = <A, E, R>(effect: Effect.Effect<A, E, R>): effect is Exit.Success<A> =>
  Exit.isExit(effect) && Exit.isSuccess(effect)
