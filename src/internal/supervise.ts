/** Loops that outlive their failures. */
import { Effect, Random } from "effect"
import type { BrokerError } from "../Broker.ts"
import { pretty } from "./failure.ts"
import type { Heartbeat } from "./heartbeat.ts"
import { isTold } from "./reports.ts"

/** The longest pause between two tries, in milliseconds. */
export const slowest = 2_000

/**
 * Runs a body for ever; a failure is reported and the body run again after a jittered pause that grows to two seconds. What the body
 * itself has waited, for a connection, is part of the pause: it must not sleep when that is back.
 */
export const supervise = <R>(
  name: string,
  body: Effect.Effect<void, BrokerError, R>,
  heartbeat?: Heartbeat
): Effect.Effect<never, never, R> =>
  Effect.suspend(() => {
    let failures = 0
    let beganAt = 0n
    const timed = Effect.clockWith((clock) => {
      beganAt = clock.monotonicTimeNanosUnsafe()
      return body
    })
    return Effect.forever(
      Effect.matchCauseEffect(timed, {
        onSuccess: () =>
          Effect.sync(() => {
            failures = 0
            heartbeat?.turn(true)
          }),
        onFailure: (cause) =>
          Effect.gen(function*() {
            failures++
            heartbeat?.turn(false)
            // A long outage fills no log.
            if (isTold(failures)) {
              yield* Effect.logWarning(
                `rotif: ${name} failed ${failures} times in a row, trying again`,
                pretty(cause)
              )
            }
            const longest = Math.min(slowest, 50 * 2 ** Math.min(failures, 10))
            const pause = (yield* Random.next) * longest
            const waited = yield* Effect.clockWith((clock) =>
              Effect.succeed(Number(clock.monotonicTimeNanosUnsafe() - beganAt) / 1e6)
            )
            yield* Effect.sleep(10 + Math.max(0, pause - waited))
          })
      }),
      // Each body waits for something, and one that a test has woken with its clock is to wait again before the clock goes on.
      { disableYield: true }
    )
  })
