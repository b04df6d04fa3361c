/** Supervision: loops that run again after a failure. */
import { Effect, Random } from "effect"
import type { BrokerError } from "../Broker.ts"
import { pretty } from "./failure.ts"
import type { Heartbeat } from "./heartbeat.ts"
import { isTold } from "./reports.ts"

/** The longest pause between two tries, in milliseconds. */
export const slowest = 2_000

// Each round waits for something. A round that a test has woken with its clock must wait again before the clock goes on.
const forever = { disableYield: true }

/**
 * Runs a loop for ever. It calls `passed` after each round. After a failure, which is logged, it runs again after a jittered pause that grows
 * to 2 seconds. The time of the failed round is part of the pause: a loop that has waited for its connection must not sleep when it is back.
 */
export const superviseLoop = <R>(
  name: string,
  loop: (passed: () => void) => Effect.Effect<void, BrokerError, R>,
  heartbeat?: Heartbeat
): Effect.Effect<never, never, R> =>
  Effect.clockWith((clock) => {
    let failures = 0
    let beganAt = 0n
    const passed = () => {
      failures = 0
      heartbeat?.turn(true)
      beganAt = clock.monotonicTimeNanosUnsafe()
    }
    const run = Effect.suspend(() => {
      beganAt = clock.monotonicTimeNanosUnsafe()
      return loop(passed)
    })
    return Effect.forever(
      Effect.catchCause(run, (cause) =>
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
          const waited = Number(clock.monotonicTimeNanosUnsafe() - beganAt) / 1e6
          yield* Effect.sleep(10 + Math.max(0, pause - waited))
        })),
      forever
    )
  })

/** Runs a body for ever, as `superviseLoop` does. */
export const supervise = <R>(
  name: string,
  body: Effect.Effect<void, BrokerError, R>,
  heartbeat?: Heartbeat
): Effect.Effect<never, never, R> =>
  superviseLoop(name, (passed) => Effect.forever(Effect.map(body, passed), forever), heartbeat)
