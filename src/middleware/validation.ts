import { Effect, Schema } from "effect"
import * as Channel from "../Channel.ts"
import * as Given from "../internal/optionChecks.ts"
import { sides } from "./composition.ts"
import type { Process, Publish } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * A payload does not satisfy a predicate of `Middleware.validation`. The message never has the payload.
 *
 * @category errors
 * @since 0.1.0
 */
export class ValidationError extends Schema.TaggedError<ValidationError>()("ValidationError", {
  channel: Schema.String,
  operation: Schema.Literals(["publish", "process"]),
  message: Schema.String
}) {}

/**
 * Refuses payloads of a channel that do not satisfy a predicate: a publish is not sent, a message counts as failed.
 *
 * **Details**: messages of other channels pass. The predicate returns whether the payload is valid, or a text that describes the problem.
 *
 * **Example** (Orders of at least one cent)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Channel, Middleware } from "rotif"
 *
 * const Order = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, cents: Schema.Int }) })
 * const positive = Middleware.validation(Order, ({ cents }) => cents > 0 || "an order costs at least one cent")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const validation = <C extends Channel.Any>(
  channel: C,
  predicate: (payload: Channel.PayloadOf<C>) => boolean | string
): Publish<ValidationError> & Process<ValidationError> => {
  if (!Channel.isSource(channel)) checked(Given.refuse("channel", "made by Channel.make", channel))
  checked(Given.required("predicate", predicate))
  const check = (name: string, operation: ValidationError["operation"], payload: unknown) =>
    Effect.suspend((): Effect.Effect<void, ValidationError> => {
      if (name !== channel.name) return Effect.void
      const answer: unknown = predicate(payload as Channel.PayloadOf<C>)
      if (answer === true) return Effect.void
      const why = typeof answer === "string"
        ? answer
        : answer === false
        ? "the payload does not satisfy the predicate"
        : Given.refuse("what the predicate gives", "true, false or a string", answer).failure.message
      return Effect.fail(
        new ValidationError({ channel: name, operation, message: `${operation} on "${name}": ${why}` })
      )
    })
  return sides<ValidationError, never, ValidationError, never>({
    publish: (next) => (request) =>
      Effect.andThen(check(request.channel.name, "publish", request.payload), next(request)),
    process: (next) => (message) => Effect.andThen(check(message.channel, "process", message.payload), next(message))
  })
}
