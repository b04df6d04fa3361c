/** Settings: the options of a subscription and the defaults of its program, checked. */
import type { Duration } from "effect"
import { Effect, Result } from "effect"
import { hostname } from "node:os"
import type { Start } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as Retry from "../Retry.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Reporting from "../internal/reports.ts"
import { uniqueName } from "../internal/uniqueName.ts"
import { isProcess } from "../middleware/composition.ts"
import { prefetchOf } from "./capacity.ts"
import type { Defaults, ExactlyOnce, Options, StartFrom, StreamOptions } from "./options.ts"
import { InvalidSubscription } from "./options.ts"

/** The defaults of a program. */
export type ProgramDefaults = Defaults & Pick<StreamOptions, "slowHandler">

/** Copies these fields only: the options of a layer also hold credentials. */
export const defaultsOf = (
  options: ProgramDefaults
): { readonly [K in keyof Required<Defaults> | "slowHandler"]: (Defaults & StreamOptions)[K] } => ({
  groupName: options.groupName,
  consumerName: options.consumerName,
  concurrency: options.concurrency,
  lease: options.lease,
  blockInterval: options.blockInterval,
  drainTimeout: options.drainTimeout,
  maxRetries: options.maxRetries,
  retryDelay: options.retryDelay,
  retry: options.retry,
  maxCrashes: options.maxCrashes,
  reports: options.reports,
  slowHandler: options.slowHandler
})

/** Dies of defaults that cannot be used. Otherwise the first subscription would fail, perhaps in a process that nobody watches. */
export const checkDefaults = Effect.fnUntraced(function*(defaults: Defaults) {
  yield* Given.orDie(Given.func("groupName", defaults.groupName))
  yield* Given.orDie(Given.func("consumerName", defaults.consumerName))
  yield* Given.orDie(Given.count("concurrency", defaults.concurrency, Limits.concurrency))
  yield* Given.orDie(Given.span("lease", defaults.lease, Limits.lease))
  yield* Given.orDie(Given.span("blockInterval", defaults.blockInterval, Limits.blockInterval))
  yield* Given.orDie(Given.span("drainTimeout", defaults.drainTimeout, Limits.drainTimeout))
  yield* Given.orDie(Given.count("maxRetries", defaults.maxRetries, Limits.maxRetries))
  yield* Given.orDie(Given.span("retryDelay", defaults.retryDelay, Limits.retryDelay))
  yield* Given.orDie(Given.count("maxCrashes", defaults.maxCrashes, Limits.maxCrashes))
  yield* Given.orDie(Retry.checkPolicy("retry", defaults.retry))
  const problem = Reporting.sinkProblem(defaults.reports)
  if (problem !== undefined) yield* Given.orDie(Result.fail({ option: "reports", message: problem }))
})

export const invalid = (option: string, message: string) => new InvalidSubscription({ option, message })

export const option = Given.failing(InvalidSubscription)

const nameOption = (name: string, value: unknown) => option(Given.name(name, value))

/** Checks a name that was given, or that a function makes. */
const madeOption = (name: string, given: unknown, functionName: string, make: () => unknown) =>
  given === undefined
    ? option(Given.made(functionName, make, (made) => Given.name(functionName, made)))
    : nameOption(name, given)

const countOption = (name: string, value: number | undefined, bounds: Given.Bounds) =>
  option(Given.count(name, value, bounds))

const spanOption = (name: string, value: Duration.Input | undefined, bounds: Given.Bounds) =>
  option(Given.span(name, value, bounds))

const startOption = (value: StartFrom | undefined): Effect.Effect<Start, InvalidSubscription> => {
  if (value === undefined || value === "earliest") return Effect.succeed({ _tag: "Earliest" })
  if (value === "latest") return Effect.succeed({ _tag: "Latest" })
  if (
    typeof value === "object" && value !== null && "position" in value && !("time" in value) &&
    typeof value.position === "string" &&
    /^\d{1,16}(-\d{1,20})?$/.test(value.position)
  ) {
    return Effect.succeed({ _tag: "Position", position: value.position })
  }
  if (typeof value === "object" && value !== null && "time" in value && !("position" in value)) {
    return Effect.map(option(Given.time("startFrom", value.time)), (atMillis) => ({ _tag: "Time", atMillis }))
  }
  return Effect.fail(
    invalid("startFrom", "startFrom must be \"earliest\", \"latest\", { position: \"1700000000000-0\" } or { time }")
  )
}

const streamNames = [
  "group",
  "consumer",
  "concurrency",
  "prefetch",
  "startFrom",
  "lease",
  "blockInterval",
  "drainTimeout",
  "maxCrashes",
  "expired",
  "reports",
  "slowHandler"
] satisfies ReadonlyArray<keyof StreamOptions>

const optionNames: ReadonlySet<string> = new Set<keyof Options<Channel.Any, never, never>>([
  ...streamNames,
  "handler",
  "middleware",
  "timeout",
  "ackMode",
  "retry",
  "maxRetries",
  "retryDelay",
  "exactlyOnce",
  "transactional"
])

const onceNames: ReadonlySet<string> = new Set<keyof ExactlyOnce<Channel.Any>>(["key", "ttl"])

const middlewareProblem = (middleware: unknown): Result.Result<unknown, Given.Problem> =>
  middleware === undefined || (Array.isArray(middleware) && middleware.every(isProcess))
    ? Result.succeed(middleware)
    : Given.refuse("middleware", "a list of middleware of handling (Middleware.process)", middleware)

/** The options of a subscription, whatever its handler may be. */
interface AnyOptions<E, M extends Retry.MessageInfo>
  extends StreamOptions, Pick<Options<Channel.Any, never, never>, "ackMode" | "maxRetries" | "retryDelay" | "timeout">
{
  readonly handler: unknown
  readonly middleware?: unknown
  readonly retry?: Retry.PolicyOrName<E, M> | undefined
  readonly exactlyOnce?: boolean | { readonly key?: unknown; readonly ttl?: Duration.Input | undefined } | undefined
  readonly transactional?: boolean | undefined
}

export type Settings<E, M extends Retry.MessageInfo> = Effect.Success<ReturnType<typeof make<E, M>>>

/** Checks the options of a subscription: nothing is started with one that cannot be used. */
export const make = Effect.fnUntraced(function*<E, M extends Retry.MessageInfo>(
  source: Channel.Source,
  options: AnyOptions<E, M>,
  defaults: ProgramDefaults,
  policies: Retry.Retry
) {
  if (!Channel.isSource(source)) {
    return yield* invalid("source", "the source must be made by Channel.make, Channel.pattern or Channel.union")
  }
  yield* option(Given.record("the options", yield* option(Given.known("the options", options, optionNames))))
  const pattern = Channel.describe(source)
  const group = yield* madeOption(
    "group",
    options.group,
    "groupName",
    () => defaults.groupName === undefined ? pattern : defaults.groupName(pattern)
  )
  const label = yield* madeOption(
    "consumer",
    options.consumer,
    "consumerName",
    () => defaults.consumerName === undefined ? `${hostname()}:${process.pid}` : defaults.consumerName()
  )
  const count = (name: "concurrency" | "maxCrashes" | "maxRetries", bounds: Given.Bounds) =>
    countOption(name, Given.first(options[name], defaults[name]), bounds)
  const span = (
    name: "lease" | "blockInterval" | "drainTimeout" | "retryDelay" | "slowHandler",
    bounds: Given.Bounds
  ) => spanOption(name, Given.first(options[name], defaults[name]), bounds)

  const concurrency = yield* count("concurrency", Limits.concurrency)
  const prefetch = options.prefetch === undefined
    ? undefined
    : yield* countOption("prefetch", options.prefetch, { usual: 0, least: 0 })
  const maxCrashes = yield* count("maxCrashes", Limits.maxCrashes)
  const maxRetries = yield* count("maxRetries", Limits.maxRetries)
  const leaseMillis = yield* span("lease", Limits.lease)
  const blockMillis = yield* span("blockInterval", Limits.blockInterval)
  const drainMillis = yield* span("drainTimeout", Limits.drainTimeout)
  const retryMillis = yield* span("retryDelay", Limits.retryDelay)
  const timeoutMillis = yield* spanOption("timeout", options.timeout, { usual: 0, least: 1 })
  const slowMillis = yield* span("slowHandler", Limits.slowHandler)
  const reports = Given.first(options.reports, defaults.reports) ?? "Warn"
  const reportsProblem = Reporting.sinkProblem(reports)
  if (reportsProblem !== undefined) return yield* invalid("reports", reportsProblem)
  const start = yield* startOption(options.startFrom)
  const ackMode = yield* option(Given.choice("ackMode", options.ackMode, ["auto", "manual"]))
  const expired = yield* option(Given.choice("expired", options.expired, ["dead-letter", "drop"]))
  yield* option(Given.required("handler", options.handler))
  const policy = yield* option(Retry.resolve("retry", options.retry, policies))
  yield* option(middlewareProblem(options.middleware))
  const isTransactional = yield* option(Given.flag("transactional", options.transactional, false))
  const once = typeof options.exactlyOnce === "boolean"
    ? undefined
    : yield* option(Given.known("exactlyOnce", options.exactlyOnce, onceNames, "exactlyOnce."))
  yield* option(Given.func("exactlyOnce.key", once?.key))
  const isOnce = isTransactional || once !== undefined || options.exactlyOnce === true
  const doneMillis = isOnce
    ? yield* spanOption("exactlyOnce.ttl", once?.ttl, {
      most: 315_576_000_000,
      usual: Math.max(86_400_000, leaseMillis),
      least: leaseMillis
    })
    : undefined
  if (isTransactional && ackMode === "manual") {
    return yield* invalid(
      "ackMode",
      "a transactional subscription acknowledges when its handler succeeds: ackMode is \"auto\""
    )
  }
  const isManual = ackMode === "manual"
  return {
    pattern,
    reports,
    isManual,
    isTransactional,
    isOnce,
    /** The policy of the subscription; `undefined`: the default policy decides alone. */
    policy,
    defaultPolicy: policies.default ?? retryMillis,
    timeoutMillis,
    retryMillis,
    maxRetries,
    /** Whether `maxRetries` ends a schedule, too. */
    isLimited: Given.first(options.maxRetries, defaults.maxRetries) !== undefined,
    membership: {
      group,
      consumer: `${label}:${uniqueName()}`,
      selector: Channel.selector(source),
      start,
      leaseMillis,
      doneMillis,
      maxCrashes
    },
    /** Settings that the consumer gets as they are. */
    consumer: {
      concurrency,
      prefetch: prefetchOf(prefetch, concurrency, isManual),
      blockMillis,
      drainMillis,
      maxCrashes,
      slowMillis,
      expired
    }
  }
})
