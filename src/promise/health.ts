/**
 * Health as the Promise API shows it.
 */
import { Duration, Effect, Exit } from "effect"
import * as DeadLetters from "../DeadLetters.ts"
import { messageOf } from "./logging.ts"

/**
 * The health of a manager: of its backend and its subscriptions.
 *
 * @category models
 * @since 0.1.0
 */
export interface HealthStatus {
  readonly status: "healthy" | "unhealthy"
  readonly connected: boolean
  /** How long the backend took to answer, in milliseconds. */
  readonly lastPingMs: number | undefined
  /** In this process. */
  readonly subscriptions: number
  readonly paused: number
  readonly deadLetters: number | undefined
  /** Why it is not healthy. */
  readonly error: string | undefined
}

type Running = ReadonlyArray<{ readonly isPaused: boolean }>

/**
 * Pings the backend, and reads the state of the subscriptions of this process.
 *
 * @internal
 */
export const check = (running: () => Running): Effect.Effect<HealthStatus, never, DeadLetters.DeadLetters> =>
  Effect.map(Effect.exit(Effect.timed(DeadLetters.count())), (exit) => {
    if (Exit.isFailure(exit)) return unhealthy(running(), exit.cause)
    const [took, deadLetters] = exit.value
    return {
      status: "healthy",
      connected: true,
      lastPingMs: Duration.toMillis(took),
      ...countsOf(running()),
      deadLetters,
      error: undefined
    }
  })

const countsOf = (running: Running) => ({
  subscriptions: running.length,
  paused: running.filter(({ isPaused }) => isPaused).length
})

/** @internal */
export const unhealthy = (running: Running, error: unknown): HealthStatus => ({
  status: "unhealthy",
  connected: false,
  lastPingMs: undefined,
  ...countsOf(running),
  deadLetters: undefined,
  error: messageOf(error)
})

/**
 * Checks regularly, and logs changes.
 *
 * @internal
 */
export const watch = (
  running: () => Running,
  intervalMillis: number
): Effect.Effect<never, never, DeadLetters.DeadLetters> => {
  let last: HealthStatus["status"] = "healthy"
  return Effect.forever(Effect.gen(function*() {
    yield* Effect.sleep(intervalMillis)
    const { error, status } = yield* check(running)
    if (status === last) return
    last = status
    yield* status === "healthy" ? Effect.logInfo("rotif: healthy again") : Effect.logWarning("rotif: unhealthy", error)
  }))
}
