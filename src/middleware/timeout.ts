import { Cause, Duration, Effect } from "effect"
import * as Given from "../internal/optionChecks.ts"
import { processSide } from "./composition.ts"
import type { Process } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * Interrupts the handling of a message that takes longer, and fails with a `TimeoutError`, which the retry policy decides about. Middleware
 * outside of it is not timed.
 *
 * **Details**: it does not apply to publishing: a publish ends within the command timeout of the backend, and one that is cut off may be stored
 * all the same.
 *
 * @category constructors
 * @since 0.1.0
 */
export const timeout = (duration: Duration.Input): Process<Cause.TimeoutError> => {
  const span = Duration.millis(checked(Given.span("duration", duration ?? Number.NaN, { usual: 0, least: 1 })))
  return processSide<Cause.TimeoutError, never>((next) => (message) =>
    Effect.timeoutOrElse(next(message), {
      duration: span,
      orElse: () =>
        Effect.fail(
          new Cause.TimeoutError(
            `handling ${message.id} on "${message.channel}" took longer than ${Duration.format(span)}`
          )
        )
    })
  )
}
