import type { Context, Fiber } from "effect"
import { Cause, Clock, DateTime, Effect, Exit, Metric } from "effect"
import { Attribute, MetricName, Operation, system } from "../Telemetry.ts"
import { errorTagOf } from "../internal/failure.ts"
import * as Given from "../internal/optionChecks.ts"
import { Around, sides } from "./composition.ts"
import type { Process, Publish, PublishRequest } from "./definition.ts"
import { checked } from "./invalidMiddleware.ts"

/**
 * Options of `metrics`.
 *
 * @category models
 * @since 0.1.0
 */
export interface MetricsOptions {
  /** The upper bounds of the histograms' buckets, in seconds. Default: those of OpenTelemetry, 5 ms to 10 s. */
  readonly boundaries?: ReadonlyArray<number> | undefined
}

const names: ReadonlySet<string> = new Set<keyof MetricsOptions>(["boundaries"])

const standard = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

type Attributes = Readonly<Record<string, string>>

/** The clock of the process is read directly: the detour over nanoseconds since 1970 costs more than a metric. */
const liveClock = Clock.Clock.defaultValue()

const seconds = (clock: Clock.Clock): number =>
  clock === liveClock ? performance.now() / 1e3 : Number(clock.currentTimeNanosUnsafe()) / 1e9

const errorType = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) return "interrupted"
  const error = Cause.squash(cause)
  const tag = errorTagOf(error)
  return tag === "Error" && error instanceof Error ? error.name : tag
}

/**
 * At most this many channels (with their groups), and kinds of errors of each, have metrics of their own; all others share one. A registered
 * metric stays for ever, and the number of names is not bounded.
 */
const mostOwn = 1_000
const mostErrors = 100
const other = "(other)"

/** Makes one value for each key, at its first use: attaching attributes at every update would cost more than the update. */
const cached = <A>(most: number, make: (...keys: ReadonlyArray<string>) => A) => {
  const values = new Map<string, A>()
  const get = (keys: ReadonlyArray<string>): A => {
    const key = keys.length === 1 ? keys[0]! : keys.join("\n")
    const value = values.get(key)
    if (value !== undefined) return value
    if (values.size >= most && keys[0] !== other) return get([other, ...keys.slice(1).map(() => other)])
    const made = make(...keys)
    values.set(key, made)
    return made
  }
  return (...keys: ReadonlyArray<string>): A => get(keys)
}

/** The metrics of one operation: of its successes, and of each error. */
const outcomes = (
  counter: Metric.Metric<number, unknown>,
  duration: Metric.Metric<number, unknown>,
  attributes: Attributes
) => {
  const of = (more: Attributes) => {
    const all = { ...attributes, ...more }
    return { count: Metric.withAttributes(counter, all), took: Metric.withAttributes(duration, all) }
  }
  const success = of({})
  const failure = cached(mostErrors, (type) => of({ [Attribute.ErrorType]: type! }))
  return (exit: Exit.Exit<unknown, unknown>, took: number, context: Context.Context<never>) => {
    const metrics = Exit.isSuccess(exit) ? success : failure(errorType(exit.cause))
    metrics.count.updateUnsafe(1, context)
    metrics.took.updateUnsafe(took, context)
  }
}

const clockOf = (fiber: Fiber.Fiber<unknown, unknown>): Clock.Clock => fiber.getRef(Clock.Clock)

/**
 * Counts and times publishes and attempts, with Effect's metrics. See `Telemetry.MetricName` for the names; each has the channel as
 * attribute, those of handling the group, and those of failures the tag of the error.
 *
 * @category constructors
 * @since 0.1.0
 */
export const metrics = (options?: MetricsOptions): Publish & Process => {
  checked(Given.known("options", options, names))
  const boundaries = options?.boundaries ?? standard
  if (!Array.isArray(boundaries) || !boundaries.every((bound, i) => bound > (boundaries[i - 1] ?? 0))) {
    checked(Given.refuse("boundaries", "a list of numbers above 0 that ascend", boundaries))
  }
  const histogram = (name: string, description: string) =>
    Metric.histogram(name, { description, boundaries, attributes: { unit: "s" } })
  const sent = Metric.counter(MetricName.Sent, { description: "Messages published", incremental: true })
  const consumed = Metric.counter(MetricName.Consumed, {
    description: "Attempts to handle a message",
    incremental: true
  })
  const operationDuration = histogram(MetricName.OperationDuration, "How long a publish takes")
  const processDuration = histogram(MetricName.ProcessDuration, "How long an attempt takes")
  const age = histogram(MetricName.Age, "From the publish of a message to the start of its handling")
  const active = Metric.gauge(MetricName.Active, { description: "Handlers running now" })

  const attributesOf = (operation: keyof typeof Operation, channel: string): Attributes => ({
    [Attribute.System]: system,
    [Attribute.Destination]: channel,
    [Attribute.OperationName]: Operation[operation].name,
    [Attribute.OperationType]: Operation[operation].type
  })
  const publishing = cached(mostOwn, (channel) => outcomes(sent, operationDuration, attributesOf("publish", channel!)))
  const processing = cached(mostOwn, (channel, group) => {
    const attributes = { ...attributesOf("process", channel!), [Attribute.Group]: group! }
    return {
      finish: outcomes(consumed, processDuration, attributes),
      active: Metric.withAttributes(active, attributes),
      age: Metric.withAttributes(age, attributes)
    }
  })

  const begin = (request: PublishRequest, fiber: Fiber.Fiber<unknown, unknown>) => {
    const { context } = fiber
    const clock = clockOf(fiber)
    const start = seconds(clock)
    const finish = publishing(request.channel.name)
    return (exit: Exit.Exit<unknown, unknown>) => finish(exit, seconds(clock) - start, context)
  }

  return sides<never, never, never, never>({
    [Around]: (request) => Effect.withFiber((fiber) => Effect.succeed({ request, leave: begin(request, fiber) })),
    publish: (next) => (request) =>
      Effect.withFiber((fiber) => {
        const leave = begin(request, fiber)
        return Effect.onExitPrimitive(next(request), (exit) => {
          leave(exit)
          return undefined
        }, true)
      }),
    process: (next) => (message) =>
      Effect.withFiber((fiber) => {
        const clock = clockOf(fiber)
        const start = seconds(clock)
        const metrics = processing(message.channel, message.group)
        const waited = clock.currentTimeMillisUnsafe() - DateTime.toEpochMillis(message.publishedAt)
        metrics.age.updateUnsafe(Math.max(0, waited) / 1000, fiber.context)
        metrics.active.modifyUnsafe(1, fiber.context)
        return Effect.onExitPrimitive(next(message), (exit) => {
          metrics.active.modifyUnsafe(-1, fiber.context)
          metrics.finish(exit, seconds(clock) - start, fiber.context)
          return undefined
        }, true)
      })
  })
}
