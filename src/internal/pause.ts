/** Waits. */
import { Effect } from "effect"

/** Waits for this many milliseconds. `Infinity` waits for ever, without a timer. */
export const pause = (millis: number): Effect.Effect<void> => millis === Infinity ? Effect.never : Effect.sleep(millis)

/**
 * Yields for some turns of the event loop, so that fibers that were just woken run, and the fibers that they wake. `TestClock.adjust` waits for
 * the effects of its timers, but not for fibers that were woken before. So an operation in memory takes this long: handlers have started, and
 * their timers are set, before a test moves the clock.
 */
export const yieldTurns: Effect.Effect<void> = Effect.suspend(() => {
  let turns = 8
  return Effect.whileLoop({ while: () => turns-- > 0, body: () => Effect.yieldNow, step: () => {} })
})
