/** Waiting for a server at the start, in real time: a server does not follow the clock of a test. */
import { Effect, Fiber } from "effect"

export const sleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** After this long the log tells what a start waits for; then after twice as long, and so on. In milliseconds. */
const firstMillis = 2_000

/** Logs what `effect` waits for while it runs. `what` names servers and reasons, and no credentials. */
export const tellWait = <A, E, R>(effect: Effect.Effect<A, E, R>, what: () => string): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let passed = 0
    const next = Effect.suspend(() => {
      const millis = passed === 0 ? firstMillis : passed
      passed += millis
      return Effect.andThen(
        sleep(millis),
        Effect.suspend(() => Effect.logWarning(`rotif: ${what()}, for ${passed / 1000} s now`))
      )
    })
    return Effect.acquireUseRelease(Effect.forkChild(Effect.forever(next)), () => effect, Fiber.interrupt)
  })
