import type { Fiber } from "effect"
import { Cause, Effect, Exit, Tracer } from "effect"
import type { AnyMessage, Process, ProcessNext, Publish, PublishNext, PublishRequest } from "../Middleware.ts"
import { tagOf } from "../Retry.ts"
import { Attribute, fromHeaders, Operation, system, toHeaders, TraceState } from "../Telemetry.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface TracingOptions {
  /**
   * How the span of handling belongs to the span of the publish: in a trace of its own with a link to it (`"link"`, the default; what
   * OpenTelemetry recommends, since a message may be handled long after and many times), or as its child (`"parent"`).
   */
  readonly relation?: "link" | "parent" | undefined
}

/** Effect's own tracer exports nothing; a span that nobody sees is not made. */
const isOff = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.cache.tracer === undefined || !fiber.cache.tracerEnabled

const noteError = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  if (!Cause.hasInterruptsOnly(cause)) span.attribute(Attribute.ErrorType, tagOf(Cause.squash(cause)))
}

const templateOf = (name: string): Readonly<Record<string, string>> =>
  /(^|\.):[^.]/.test(name) ? { [Attribute.DestinationTemplate]: name } : {}

const publishAttributes = ({ channel, id, options }: PublishRequest): Record<string, unknown> => ({
  [Attribute.System]: system,
  [Attribute.Destination]: channel.name,
  ...templateOf(channel.name),
  [Attribute.OperationName]: Operation.publish.name,
  [Attribute.OperationType]: Operation.publish.type,
  [Attribute.MessageId]: options.id ?? id
})

const processAttributes = (message: AnyMessage): Record<string, unknown> => ({
  [Attribute.System]: system,
  [Attribute.Destination]: message.channel,
  ...templateOf(message.channel),
  [Attribute.OperationName]: Operation.process.name,
  [Attribute.OperationType]: Operation.process.type,
  [Attribute.MessageId]: message.id,
  [Attribute.Group]: message.group,
  [Attribute.Attempt]: message.attempt,
  [Attribute.DeliveryCount]: message.deliveryCount
})

/**
 * Makes a span for each publish and each attempt, and carries the trace in the headers of the message (W3C `traceparent` and
 * `tracestate`).
 *
 * **Details**: the spans are `publish <channel>` (kind `producer`) and `process <channel>` (kind `consumer`); the second links to the
 * first. Where no tracer is provided nothing is done. A `traceparent` that the publish was given by its caller is the parent of its span
 * unless there is one in Effect's own context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const tracing = (options?: TracingOptions): Publish & Process => {
  const isChild = options?.relation === "parent"
  return {
    publish: (next) => (request) =>
      Effect.withFiber((fiber): ReturnType<PublishNext> => {
        if (isOff(fiber)) return next(request)
        const { headers } = request.options
        const given = headers === undefined || fiber.cache.span !== undefined ? undefined : fromHeaders(headers)
        return Effect.useSpan(
          `${Operation.publish.name} ${request.channel.name}`,
          { kind: "producer", attributes: publishAttributes(request), parent: given },
          (span) => {
            // Of a trace that begins here, a `tracestate` of another would be wrong.
            const traceState = given === undefined ? fiber.getRef(TraceState) : headers!["tracestate"]
            const { traceparent: _parent, tracestate: _state, ...others } = headers ?? {}
            const traced: PublishRequest = {
              ...request,
              options: { ...request.options, headers: { ...others, ...toHeaders(span, traceState) } }
            }
            const published = Effect.onExit(next(traced), (exit) =>
              Effect.sync(() =>
                Exit.isSuccess(exit) ? span.attribute(Attribute.Receipt, exit.value._tag) : noteError(span, exit.cause)
              ))
            return Effect.provideService(published, Tracer.ParentSpan, span)
          }
        )
      }),
    process: (next) => (message) =>
      Effect.withFiber((fiber): ReturnType<ProcessNext> => {
        if (isOff(fiber)) return next(message)
        const publisher = fromHeaders(message.headers)
        const parent = isChild ? publisher : undefined
        return Effect.useSpan(
          `${Operation.process.name} ${message.channel}`,
          {
            kind: "consumer",
            attributes: processAttributes(message),
            // The span around the start of the subscription has nothing to do with the message.
            root: parent === undefined,
            parent,
            links: publisher === undefined || isChild ? [] : [{ span: publisher, attributes: {} }]
          },
          (span) => {
            const handled = Effect.provideService(
              Effect.tapCause(next(message), (cause) => Effect.sync(() => noteError(span, cause))),
              Tracer.ParentSpan,
              span
            )
            // A `tracestate` belongs to its trace, which goes on only in a child.
            const traceState = parent === undefined ? undefined : message.headers["tracestate"]
            return traceState === fiber.getRef(TraceState)
              ? handled
              : Effect.provideService(handled, TraceState, traceState)
          }
        )
      })
  }
}
