import type { LogLevel } from "effect"
import { Cause, Effect } from "effect"
import { Attribute } from "../Telemetry.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Shape from "../internal/optionShape.ts"
import { sides } from "./composition.ts"
import type { Process, Publish } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * Options of `logging`: the level of its lines.
 *
 * @category models
 * @since 0.1.0
 */
export interface LoggingOptions {
  /** The level of a line about a success. Default `"Debug"`. */
  readonly success?: LogLevel.Severity | undefined
  /** The level of a line about a failure. Default `"Warn"`. */
  readonly failure?: LogLevel.Severity | undefined
}

const level = (usual: LogLevel.Severity): Shape.Check<LogLevel.Severity> => (option, value = usual) =>
  Given.choice(option, value as LogLevel.Severity, ["Trace", "Debug", "Info", "Warn", "Error", "Fatal"])

const shape = Shape.shape<LoggingOptions>()({ success: level("Debug"), failure: level("Warn") })

/**
 * Logs each publish and each attempt, and annotates every line that is logged within with the channel, the group, the message id and
 * the attempt. Payloads and headers are not logged.
 *
 * @category constructors
 * @since 0.1.0
 */
export const logging = (options?: LoggingOptions): Publish & Process => {
  const given = checked(shape.optional("options", options))
  const success = Effect.logWithLevel(given.success)
  const failure = Effect.logWithLevel(given.failure)
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
