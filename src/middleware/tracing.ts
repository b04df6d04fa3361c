import type { Fiber } from "effect"
import { Cause, Clock, Effect, Exit, References, Tracer } from "effect"
import { Attribute, fromHeaders, Operation, system, toHeaders, TraceState } from "../Telemetry.ts"
import { Bounded } from "../internal/boundedMap.ts"
import { errorTagOf } from "../internal/failure.ts"
import * as Shape from "../internal/optionShape.ts"
import type { Entered } from "./composition.ts"
import { Around, AroundBatch, sides } from "./composition.ts"
import type { Process, ProcessNext, Publish, PublishNext, PublishRequest } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * Options of `tracing`.
 *
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

const shape = Shape.shape<TracingOptions>()({ relation: Shape.choice("link", "parent") })

/** Effect's own tracer exports nothing: no span is made for it. */
const isOff = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.cache.tracer === undefined || !fiber.cache.tracerEnabled

const noteError = (span: Tracer.Span, cause: Cause.Cause<unknown>): void => {
  if (!Cause.hasInterruptsOnly(cause)) span.attribute(Attribute.ErrorType, errorTagOf(Cause.squash(cause)))
}

/** At most this many channels are remembered with their attributes. */
const mostChannels = 1_000

interface Known {
  readonly name: string
  readonly attributes: Readonly<Record<string, string>>
}

/** The common part of the spans of an operation on a channel, made once. */
const knownOf = (operation: keyof typeof Operation) => {
  const { name, type } = Operation[operation]
  const known = new Bounded<string, Known>(mostChannels)
  return (channel: string): Known => {
    let found = known.get(channel)
    if (found === undefined) {
      const template = /(^|\.):[^.]/.test(channel) ? { [Attribute.DestinationTemplate]: channel } : {}
      found = {
        name: `${name} ${channel}`,
        attributes: {
          [Attribute.System]: system,
          [Attribute.Destination]: channel,
          ...template,
          [Attribute.OperationName]: name,
          [Attribute.OperationType]: type
        }
      }
      known.set(channel, found)
    }
    return found
  }
}

type Strings = Readonly<Record<string, string>>

const withTrace = (headers: Strings | undefined, trace: Strings): Strings => {
  if (headers === undefined) return trace
  // A trace that is not continued leaves no headers.
  const { traceparent: _parent, tracestate: _state, ...others } = headers
  return { ...others, ...trace }
}

/** Runs an effect in the span, and records the outcome. */
const within = <A, E, R>(span: Tracer.Span, effect: Effect.Effect<A, E, R>, note?: (value: A) => void) =>
  Effect.provideService(
    Effect.onExitPrimitive(effect, (exit) => {
      if (Exit.isFailure(exit)) noteError(span, exit.cause)
      else note?.(exit.value)
      return undefined
    }, true),
    Tracer.ParentSpan,
    span
  )

/**
 * Makes a span for each publish and each attempt, and carries the trace in the headers of the message (W3C `traceparent` and
 * `tracestate`).
 *
 * **Details**: the spans are `publish <channel>` (kind `producer`) and `process <channel>` (kind `consumer`); the second links to the
 * first. A batch has one span, `process <channel>` (or `process`, if it has several channels), with a link to the publish of each message.
 * Where no tracer is provided nothing is done. A `traceparent` that the publish was given by its caller is the parent of its span
 * unless there is one in Effect's own context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const tracing = (options?: TracingOptions): Publish & Process => {
  const isChild = checked(shape.optional("options", options)).relation === "parent"
  const publishing = knownOf("publish")
  const processing = knownOf("process")
  const processingMany: Known = {
    name: Operation.process.name,
    attributes: {
      [Attribute.System]: system,
      [Attribute.OperationName]: Operation.process.name,
      [Attribute.OperationType]: Operation.process.type
    }
  }
  /** The span of a publish, and the request that carries its trace. */
  const begin = (request: PublishRequest, fiber: Fiber.Fiber<unknown, unknown>) => {
    const { headers } = request.options
    const given = headers === undefined || fiber.cache.span !== undefined ? undefined : fromHeaders(headers)
    const { attributes, name } = publishing(request.channel.name)
    return {
      name,
      options: { kind: "producer", attributes, parent: given } satisfies Tracer.SpanOptionsNoTrace,
      carry: (span: Tracer.Span): PublishRequest => {
        span.attribute(Attribute.MessageId, request.options.id ?? request.id)
        // A trace that begins here must not carry the `tracestate` of another.
        const traceState = given === undefined ? fiber.getRef(TraceState) : headers!["tracestate"]
        return {
          ...request,
          options: { ...request.options, headers: withTrace(headers, toHeaders(span, traceState)) }
        }
      }
    }
  }
  return sides<never, never, never, never>({
    [Around]: (request) =>
      Effect.withFiber((fiber): Effect.Effect<Entered> => {
        if (isOff(fiber)) return Effect.succeed({ request, leave: () => {} })
        const { carry, name, options } = begin(request, fiber)
        const clock = fiber.getRef(Clock.Clock)
        const isTimed = fiber.getRef(References.TracerTimingEnabled)
        return Effect.map(Effect.makeSpan(name, options), (span) => ({
          request: carry(span),
          leave: (exit) => {
            if (Exit.isFailure(exit)) noteError(span, exit.cause)
            else span.attribute(Attribute.Receipt, exit.value._tag)
            span.end(isTimed ? clock.currentTimeNanosUnsafe() : 0n, exit)
          }
        }))
      }),
    publish: (next) => (request) =>
      Effect.withFiber((fiber): ReturnType<PublishNext> => {
        if (isOff(fiber)) return next(request)
        const { carry, name, options } = begin(request, fiber)
        return Effect.useSpan(
          name,
          options,
          (span) => within(span, next(carry(span)), ({ _tag }) => span.attribute(Attribute.Receipt, _tag))
        )
      }),
    [AroundBatch]: (next) => (entries) =>
      Effect.withFiber((fiber) => {
        const [first] = entries
        if (first === undefined || isOff(fiber)) return next(entries)
        const isOne = entries.every(({ message }) => message.channel === first.message.channel)
        const { attributes, name } = isOne ? processing(first.message.channel) : processingMany
        const links = entries.flatMap(({ message }) => {
          const span = fromHeaders(message.headers)
          return span === undefined ? [] : [{ span, attributes: { [Attribute.MessageId]: message.id } }]
        })
        return Effect.useSpan(name, { kind: "consumer", attributes, root: true, links }, (span) => {
          span.attribute(Attribute.BatchCount, entries.length)
          span.attribute(Attribute.Group, first.message.group)
          return within(span, Effect.provideService(next(entries), TraceState, undefined), (exits) => {
            const failed = exits.find(Exit.isFailure)
            if (failed !== undefined) noteError(span, failed.cause)
          })
        })
      }),
    process: (next) => (message) =>
      Effect.withFiber((fiber): ReturnType<ProcessNext> => {
        if (isOff(fiber)) return next(message)
        const publisher = fromHeaders(message.headers)
        const parent = isChild ? publisher : undefined
        const { attributes, name } = processing(message.channel)
        return Effect.useSpan(
          name,
          {
            kind: "consumer",
            attributes,
            // The span around the start of the subscription has nothing to do with the message.
            root: parent === undefined,
            parent,
            links: publisher === undefined || isChild ? undefined : [{ span: publisher, attributes: {} }]
          },
          (span) => {
            span.attribute(Attribute.MessageId, message.id)
            span.attribute(Attribute.Group, message.group)
            span.attribute(Attribute.Attempt, message.attempt)
            span.attribute(Attribute.DeliveryCount, message.deliveryCount)
            const handled = within(span, next(message))
            // A `tracestate` belongs to its trace, which goes on only in a child.
            const traceState = parent === undefined ? undefined : message.headers["tracestate"]
            return traceState === fiber.getRef(TraceState)
              ? handled
              : Effect.provideService(handled, TraceState, traceState)
          }
        )
      })
  })
}
