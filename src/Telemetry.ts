/**
 * The names of telemetry, and the trace context that travels with a message.
 *
 * Names follow OpenTelemetry's semantic conventions for messaging; names that these do not have begin with `rotif.`. `Middleware.tracing`,
 * `Middleware.metrics` and `Middleware.logging` use them.
 *
 * @since 0.1.0
 */
import { Context, Tracer } from "effect"

/**
 * The attributes of spans, metrics and log lines.
 *
 * @category models
 * @since 0.1.0
 */
export const Attribute = {
  System: "messaging.system",
  /** The name of the channel; of a template its text, so that the attribute has few values. */
  Destination: "messaging.destination.name",
  /** The text of a template channel. */
  DestinationTemplate: "messaging.destination.template",
  OperationName: "messaging.operation.name",
  OperationType: "messaging.operation.type",
  MessageId: "messaging.message.id",
  /** The number of messages of a batch. */
  BatchCount: "messaging.batch.message_count",
  Group: "messaging.consumer.group.name",
  /** The `_tag` or name of the error; only after a failure. */
  ErrorType: "error.type",
  /** The receipt of a publish: `Published`, `Scheduled` or `Duplicate`. */
  Receipt: "rotif.receipt",
  /** Which Rotif of a program reports, if there are several: the option `namespace` of `Stats.layerMetrics`. */
  Namespace: "rotif.namespace",
  Attempt: "rotif.attempt",
  DeliveryCount: "rotif.delivery_count"
} as const

/**
 * The value of `messaging.system`.
 *
 * @category models
 * @since 0.1.0
 */
export const system = "redis"

/**
 * The operations: their names, and the types OpenTelemetry gives them.
 *
 * @category models
 * @since 0.1.0
 */
export const Operation = {
  publish: { name: "publish", type: "send" },
  process: { name: "process", type: "process" }
} as const

/**
 * The names of the metrics.
 *
 * @category models
 * @since 0.1.0
 */
export const MetricName = {
  /** Counter: publishes, also those that failed (with `error.type`). */
  Sent: "messaging.client.sent.messages",
  /** Histogram, seconds: how long a publish took. */
  OperationDuration: "messaging.client.operation.duration",
  /** Counter: messages handed to a handler (each attempt counts). */
  Consumed: "messaging.client.consumed.messages",
  /** Histogram, seconds: how long the handling of one attempt took. */
  ProcessDuration: "messaging.process.duration",
  /** Gauge: handlers running now. */
  Active: "rotif.process.active",
  /** Gauges of a group over all channels, of `Stats.layerMetrics`: not handed out yet; handed out and not settled; ready again. */
  GroupLag: "rotif.group.lag",
  GroupPending: "rotif.group.pending",
  GroupReady: "rotif.group.ready",
  /** Gauges likewise: waiting for the time of their retry; dead letters; the age in seconds of the oldest that is not settled. */
  GroupDue: "rotif.group.due",
  GroupDeadLetters: "rotif.group.dead_letters",
  GroupOldestAge: "rotif.group.oldest_age",
  /** Counter: handlers that have run for longer than `slowHandler`. Counted without middleware. */
  SlowHandlers: "rotif.process.slow",
  /** Histogram, seconds: from the first publish (the backend's clock) to the start of the handler (this process's clock). */
  Age: "rotif.message.age"
} as const

/**
 * The W3C `tracestate` of the current trace. `Middleware.tracing` sends it with each publish. Set it where a trace enters from outside.
 *
 * @category services
 * @since 0.1.0
 */
export const TraceState: Context.Reference<string | undefined> = Context.Reference<string | undefined>(
  "rotif/Telemetry/TraceState",
  { defaultValue: () => undefined }
)

type Strings = Readonly<Record<string, string>>

/**
 * Returns the headers that carry a span: W3C `traceparent`, and `tracestate` if there is one.
 *
 * @category operations
 * @since 0.1.0
 */
export const toHeaders = (span: Tracer.AnySpan, traceState?: string): Strings => {
  const traceparent = `00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`
  return traceState === undefined || traceState === "" ? { traceparent } : { traceparent, tracestate: traceState }
}

// version-trace-span-flags. A later version than 00 may have more after another dash.
const pattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-|$)/
const noTrace = "0".repeat(32)
const noSpan = "0".repeat(16)

/**
 * Reads the span that headers carry; `undefined` if there is none or it is not valid.
 *
 * @category operations
 * @since 0.1.0
 */
export const fromHeaders = (headers: Strings): Tracer.ExternalSpan | undefined => {
  const text = headers["traceparent"]
  if (text === undefined || !pattern.test(text)) return undefined
  if (text.startsWith("ff") || (text.length > 55 && text.startsWith("00"))) return undefined
  const traceId = text.slice(3, 35)
  const spanId = text.slice(36, 52)
  if (traceId === noTrace || spanId === noSpan) return undefined
  // The last bit of the flags: the digit is odd.
  return Tracer.externalSpan({ traceId, spanId, sampled: (Number.parseInt(text[54]!, 16) & 1) === 1 })
}
