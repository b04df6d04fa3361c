/**
 * How a waiting read is made to come back: to look at its streams again, or to return to its caller.
 *
 * A read waits in Redis, blocked, or in the process while there is no stream to wait for. One of them runs at a time.
 */
import type { Cause } from "effect"
import { Effect, Exit } from "effect"
import type { BlockingConnection, RedisError } from "../../Redis.ts"
import { shortBlockMillis } from "../../redis/permissions.ts"

/** The pause between two attempts to unblock a read grows up to this. */
const longestPauseMillis = 100

export const make = (reader: BlockingConnection, monotonic: () => number) => {
  let isReading = false
  let isWaking = false
  let isCalled = false
  let endIdle: (() => void) | undefined

  /** Makes a waiting read look at its streams again. */
  const nudge = Effect.suspend(() => {
    if (!isReading) return Effect.void
    isWaking = true
    endIdle?.()
    // The read may be on its way and not blocked yet when the first attempt arrives.
    let pause = 1
    return Effect.whileLoop({
      while: () => isReading && isWaking,
      body: () =>
        Effect.andThen(reader.unblock, Effect.suspend(() => isReading && isWaking ? Effect.sleep(pause) : Effect.void)),
      step: () => {
        pause = Math.min(pause * 2, longestPauseMillis)
      }
    })
  })

  return {
    /**
     * Repeats `once` until it has something, its caller is woken, or the time is over. `onFailure` runs when it fails or is interrupted.
     */
    during: <A>(
      blockMillis: number,
      once: (millis: number) => Effect.Effect<A, RedisError>,
      isSomething: (value: A) => boolean,
      onFailure: (cause: Cause.Cause<RedisError>) => Effect.Effect<void, RedisError>
    ) =>
      Effect.suspend(() => {
        isWaking = false
        isCalled = false
        isReading = true
        const untilMillis = monotonic() + blockMillis
        const readFor = (millis: number): Effect.Effect<A, RedisError> =>
          // Without permission to unblock a read, it blocks for short times only.
          Effect.flatMap(once(reader.mayUnblock() ? millis : Math.min(millis, shortBlockMillis)), (value) => {
            const left = untilMillis - monotonic()
            if (isSomething(value) || isCalled || left <= 0) return Effect.succeed(value)
            // It only had to look at its streams again: the rest of its time is not over.
            isWaking = false
            return readFor(left)
          })
        return Effect.onExit(readFor(blockMillis), (exit) => {
          isReading = false
          return Exit.isSuccess(exit) ? Effect.void : onFailure(exit.cause)
        })
      }),

    /** Whether the read is to come back: it must not begin to wait. */
    isWaking: () => isWaking,

    /** Waits in the process, at most this long. */
    idle: (millis: number) =>
      Effect.raceFirst(
        Effect.sleep(millis),
        Effect.callback<void>((resume) => {
          endIdle = () => resume(Effect.void)
        })
      ),

    nudge,

    /** Makes a waiting read return to its caller. */
    wake: Effect.suspend(() => {
      isCalled = isReading
      return nudge
    })
  }
}

export type Wakeup = ReturnType<typeof make>
