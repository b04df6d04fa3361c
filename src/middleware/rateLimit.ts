import { Duration, Effect } from "effect"
import type { RateLimiterError } from "effect/persistence/RateLimiter"
import { RateLimiter } from "effect/persistence/RateLimiter"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import { sides } from "./composition.ts"
import type { Process, Publish } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * The subject of a limit: a publish to a channel, or the handling of its messages by a group.
 *
 * @category models
 * @since 0.1.0
 */
export type Limited =
  | { readonly operation: "publish"; readonly channel: string }
  | { readonly operation: "process"; readonly channel: string; readonly group: string }

/**
 * Options of `rateLimit`.
 *
 * @category models
 * @since 0.1.0
 */
export interface RateLimitOptions {
  /** At most this many messages pass within `window`. */
  readonly limit: number
  readonly window: Duration.Input
  /** The algorithm. Default `"token-bucket"`, which spreads the messages over the window. */
  readonly algorithm?: "fixed-window" | "token-bucket" | undefined
  /** What happens to a message above the limit: it waits (`"delay"`, the default), or fails with `RateLimiterError`. */
  readonly onExceeded?: "delay" | "fail" | undefined
  /** The key of a limit. Default: each channel has a limit for its publishes, and one for each group that handles its messages. */
  readonly key?: ((limited: Limited) => string) | undefined
}

const shape = Shape.shape<RateLimitOptions>()({
  limit: (option, value = Number.NaN) =>
    Given.count(option, value as number, { usual: 1, least: 1, most: 1_000_000_000 }),
  window: (option, value = Number.NaN) => Given.span(option, value as Duration.Input, { usual: 0, least: 1 }),
  algorithm: Shape.choice("token-bucket", "fixed-window"),
  onExceeded: Shape.choice("delay", "fail"),
  key: Shape.func
})

/**
 * Checks the key of a limit: a value that is no key would be one limit for all.
 *
 * @internal
 */
export const limitKey = (key: ((limited: Limited) => string) | undefined) => (limited: Limited): string => {
  if (key !== undefined) return checked(Given.key("what the function key gives", key(limited), 1024))
  return `rotif:${limited.operation}:${limited.channel}${limited.operation === "publish" ? "" : `:${limited.group}`}`
}

/**
 * Limits how many messages are published or handled in a span of time, with Effect's `RateLimiter`. With its Redis store the limit holds for all
 * processes together.
 *
 * **Details**: the lease of a waiting message is renewed, and it counts against `concurrency`.
 *
 * **Errors**: `RateLimiterError` if the limit is exceeded with `onExceeded: "fail"`, or if the store fails.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rateLimit = (
  options: RateLimitOptions
): Publish<RateLimiterError, RateLimiter> & Process<RateLimiterError, RateLimiter> => {
  const { algorithm, limit, onExceeded, ...given } = checked(shape.required("options", options))
  const window = Duration.millis(given.window)
  const key = limitKey(given.key)
  const pass = (limited: Limited) =>
    RateLimiter.use((limiter) =>
      Effect.flatMap(
        Effect.suspend(() => limiter.consume({ algorithm, onExceeded, window, limit, key: key(limited) })),
        ({ delay }) => Duration.isZero(delay) ? Effect.void : Effect.sleep(delay)
      )
    )
  return sides<RateLimiterError, RateLimiter, RateLimiterError, RateLimiter>({
    publish: (next) => (request) =>
      Effect.andThen(pass({ operation: "publish", channel: request.channel.name }), next(request)),
    process: (next) => (message) =>
      Effect.andThen(pass({ operation: "process", channel: message.channel, group: message.group }), next(message))
  })
}
