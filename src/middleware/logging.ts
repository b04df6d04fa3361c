import type { LogLevel } from "effect"
import { Cause, Effect } from "effect"
import { sides } from "../internal/chain.ts"
import type { Process, Publish } from "../Middleware.ts"
import { Attribute } from "../Telemetry.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface LoggingOptions {
  /** The level of a line about a success. Default `"Debug"`. */
  readonly success?: LogLevel.Severity | undefined
  /** The level of a line about a failure. Default `"Warn"`. */
  readonly failure?: LogLevel.Severity | undefined
}

/**
 * Logs each publish and each attempt, and annotates every line that is logged within with the channel, the group, the message id and
 * the attempt. Payloads and headers are not logged.
 *
 * @category constructors
 * @since 0.1.0
 */
export const logging = (options?: LoggingOptions): Publish & Process => {
  const success = Effect.logWithLevel(options?.success ?? "Debug")
  const failure = Effect.logWithLevel(options?.failure ?? "Warn")
  const failed = (what: string) => (cause: Cause.Cause<unknown>) =>
    Cause.hasInterruptsOnly(cause) ? success(`${what} was interrupted`) : failure(`${what} failed`, cause)
  return sides<never, never, never, never>({
    publish: (next) => (request) =>
      next(request).pipe(
        Effect.tap((receipt) => success(`publish: ${receipt._tag}`)),
        Effect.tapCause(failed("publish")),
        Effect.annotateLogs({
          [Attribute.Destination]: request.channel.name,
          [Attribute.MessageId]: request.options.id ?? request.id
        })
      ),
    process: (next) => (message) =>
      next(message).pipe(
        Effect.tap(() => success("process: done")),
        Effect.tapCause(failed("process")),
        Effect.annotateLogs({
          [Attribute.Destination]: message.channel,
          [Attribute.Group]: message.group,
          [Attribute.MessageId]: message.id,
          [Attribute.Attempt]: message.attempt
        })
      )
  })
}
