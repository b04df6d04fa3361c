import type { Exit } from "effect"
import { Duration, Effect } from "effect"
import type { CircuitBreakerError, Outcome } from "effect/persistence/CircuitBreaker"
import { CircuitBreaker } from "effect/persistence/CircuitBreaker"
import * as Shape from "../internal/optionShape.ts"
import { sides } from "./composition.ts"
import type { Process, Publish } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"
import type { Limited } from "./rateLimit.ts"
import { limitKey } from "./rateLimit.ts"

/**
 * Options of `circuitBreaker`.
 *
 * @category models
 * @since 0.1.0
 */
export interface CircuitBreakerOptions {
  /** The key of a circuit. Default: each channel has a circuit for its publishes, and one for each group that handles its messages. */
  readonly key?: ((limited: Limited) => string) | undefined
  /** Whether an outcome counts as a failure. Default: every failure does, but not an interruption. */
  readonly classify?: ((exit: Exit.Exit<unknown, unknown>) => Outcome) | undefined
  /**
   * What happens to messages while the circuit is open: they wait until it admits them (`"wait"`, the default; no attempt is counted), or fail
   * with `CircuitBreakerError`. A publish always fails.
   */
  readonly whenOpen?: "wait" | "fail" | undefined
  /** How often a waiting message asks whether the probe has succeeded. Default 1 second. */
  readonly probeInterval?: Duration.Input | undefined
}

const shape = Shape.shape<CircuitBreakerOptions>()({
  key: Shape.func,
  classify: Shape.func,
  whenOpen: Shape.choice("wait", "fail"),
  probeInterval: Shape.span({ usual: 1_000, least: 1 })
})

/**
 * Stops calls that keep failing, with Effect's `CircuitBreaker`: its layer decides when the circuit opens and for how long, its store whether
 * processes share it.
 *
 * **Details**: the lease of a waiting message is renewed, and it counts against `concurrency`, so that a subscription whose circuit is open soon
 * takes no more messages.
 *
 * **Errors**: `CircuitBreakerError`: the circuit is open, or its store failed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const circuitBreaker = (
  options?: CircuitBreakerOptions
): Publish<CircuitBreakerError, CircuitBreaker> & Process<CircuitBreakerError, CircuitBreaker> => {
  const given = checked(shape.optional("options", options))
  const { classify } = given
  const key = limitKey(given.key)
  const waits = given.whenOpen === "wait"
  const probeInterval = Duration.millis(given.probeInterval)

  const execute = <A, E, R>(effect: Effect.Effect<A, E, R>, limited: Limited) =>
    CircuitBreaker.use((breaker) => Effect.suspend(() => breaker.execute(effect, { key: key(limited), classify })))

  return sides<CircuitBreakerError, CircuitBreaker, CircuitBreakerError, CircuitBreaker>({
    publish: (next) => (request) => execute(next(request), { operation: "publish", channel: request.channel.name }),
    process: (next) => (message) => {
      const limited: Limited = { operation: "process", channel: message.channel, group: message.group }
      if (!waits) return execute(next(message), limited)
      return CircuitBreaker.use((breaker) => {
        let isAdmitted = false
        const tried = breaker.execute(
          Effect.suspend(() => {
            isAdmitted = true
            return next(message)
          }),
          { key: key(limited), classify }
        )
        const attempt: typeof tried = Effect.catchCause(tried, (cause) => {
          if (isAdmitted) return Effect.failCause(cause)
          const error = cause.reasons[0]
          if (error?._tag !== "Fail") return Effect.failCause(cause)
          // A call that was not admitted can only have been refused by the breaker.
          const { reason } = error.error as CircuitBreakerError
          if (reason._tag === "CircuitBreakerStoreError") return Effect.failCause(cause)
          const pause = reason._tag === "CircuitOpen"
            ? Duration.max(reason.retryAfter, Duration.millis(1))
            : probeInterval
          return Effect.andThen(Effect.sleep(pause), attempt)
        })
        return attempt
      })
    }
  })
}
