/** Ways to wait. */
import { Effect } from "effect"

/** Waits for so many milliseconds; `Infinity` is for ever, for which there is no timer. */
export const pause = (millis: number): Effect.Effect<void> => millis === Infinity ? Effect.never : Effect.sleep(millis)

/**
 * Lets those go on who have just been told of something, and those whom they tell, for some turns of the event loop. `TestClock.adjust`
 * waits for what a timer sets off, but not for what was set off before it is called: what a test does in memory takes this long, so
 * that handlers have begun, and their timers are set, before the test moves the clock.
 */
export const yieldTurns: Effect.Effect<void> = Effect.suspend(() => {
  let turns = 8
  return Effect.whileLoop({ while: () => turns-- > 0, body: () => Effect.yieldNow, step: () => {} })
})
