/** Settings: the options of a subscription and the defaults of its program, checked. */
import type { Duration } from "effect"
import { Effect, Result } from "effect"
import { hostname } from "node:os"
import type { Start } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as Retry from "../Retry.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Shape from "../internal/optionShape.ts"
import * as Reporting from "../internal/reports.ts"
import { uniqueName } from "../internal/uniqueName.ts"
import { isProcess } from "../middleware/composition.ts"
import { prefetchOf } from "./capacity.ts"
import type { Defaults, Options, PauseWhen, StreamOptions } from "./options.ts"
import { InvalidSubscription } from "./options.ts"
import type { Storm } from "./storm.ts"

/** The defaults of a program. */
export type ProgramDefaults = Defaults & Pick<StreamOptions, "slowHandler">

/** The options for which a program can have a default. */
const shared = {
  concurrency: Shape.count(Limits.concurrency),
  lease: Shape.span(Limits.lease),
  blockInterval: Shape.span(Limits.blockInterval),
  drainTimeout: Shape.span(Limits.drainTimeout),
  maxRetries: Shape.count(Limits.maxRetries),
  retryDelay: Shape.span(Limits.retryDelay),
  maxCrashes: Shape.count(Limits.maxCrashes),
  reports: Reporting.sinkOf,
  slowHandler: Shape.span(Limits.slowHandler)
}

const defaultShape = Shape.shape<ProgramDefaults>()({
  groupName: Shape.func,
  consumerName: Shape.func,
  ...shared,
  retry: Retry.checkPolicy
})

/** Copies these fields only: the options of a layer also hold credentials. */
export const defaultsOf = (options: ProgramDefaults): ProgramDefaults => defaultShape.pick(options)

/** Dies of defaults that cannot be used. Otherwise the first subscription would fail, perhaps in a process that nobody watches. */
export const checkDefaults = (defaults: ProgramDefaults) => Given.orDie(defaultShape.read(defaults))

/** The names of the defaults. */
export const defaultNames = defaultShape.names

export const invalid = (option: string, message: string) => new InvalidSubscription({ option, message })

export const option = Given.failing(InvalidSubscription)

const startOf: Shape.Check<Start> = (option, value) => {
  if (value === undefined || value === "earliest") return Result.succeed({ _tag: "Earliest" })
  if (value === "latest") return Result.succeed({ _tag: "Latest" })
  const { position, time } = typeof value === "object" && value !== null
    ? value as { readonly position?: unknown; readonly time?: unknown }
    : {}
  if (position !== undefined && time === undefined) {
    const found = Given.position(option, position)
    if (Result.isSuccess(found)) return Result.succeed({ _tag: "Position", position: found.success })
  }
  if (time !== undefined && position === undefined) {
    return Result.map(Given.time(option, time), (atMillis) => ({ _tag: "Time", atMillis }))
  }
  return Result.fail({
    option,
    message: `${option} must be "earliest", "latest", { position: "1700000000000-0" } or { time }`
  })
}

/** An option that must be there. */
const needed = <A>(check: Shape.Check<A>): Shape.Check<A> => (option, value) => check(option, value ?? Number.NaN)

const stormShape = Shape.shape<PauseWhen>()({
  dead: needed(Shape.count(Limits.stormLetters)),
  within: needed(Shape.span(Limits.stormWithin))
})

const stormOf: Shape.Check<Storm | undefined> = (option, value) =>
  value === undefined
    ? Result.succeed(undefined)
    : Result.map(
      stormShape.required(option, value as PauseWhen, `${option}.`),
      ({ dead, within }) => ({ dead, withinMillis: within })
    )

const middlewareOf: Shape.Check = (option, middleware) =>
  middleware === undefined || (Array.isArray(middleware) && middleware.every(isProcess))
    ? Result.succeed(middleware)
    : Given.refuse(option, "a list of middleware of handling (Middleware.process)", middleware)

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

const optionShape = Shape.shape<AnyOptions<never, never>>()({
  group: Shape.optional(Shape.name),
  consumer: Shape.optional(Shape.name),
  ...shared,
  prefetch: Shape.optional(Shape.count({ usual: 0, least: 0 })),
  startFrom: startOf,
  timeout: Shape.span({ usual: 0, least: 1 }),
  ackMode: Shape.choice("auto", "manual"),
  ordering: Shape.choice("block", "none"),
  expired: Shape.choice("dead-letter", "drop"),
  pauseWhen: stormOf,
  handler: Shape.handler,
  middleware: middlewareOf,
  transactional: Shape.flag(false),
  // These need the policies of the program, and the lease.
  retry: Shape.any,
  exactlyOnce: Shape.any
})

const onceShape = (leaseMillis: number) =>
  Shape.shape<{ readonly key?: unknown; readonly ttl?: Duration.Input | undefined }>()({
    key: Shape.func,
    ttl: Shape.span({ most: Limits.longestKept, usual: Math.max(86_400_000, leaseMillis), least: leaseMillis })
  })

/** A name that was given, or the one that a function of the program makes. */
const madeName = (given: string | undefined, functionName: string, make: () => string) =>
  given === undefined
    ? option(Given.made(functionName, make, (made) => Given.name(functionName, made)))
    : Effect.succeed(given)

export type Settings<E, M extends Retry.MessageInfo> = Effect.Success<ReturnType<typeof make<E, M>>>

/** Checks the options of a subscription: nothing is started with one that cannot be used. */
export const make = Effect.fnUntraced(function*<E, M extends Retry.MessageInfo>(
  source: Channel.Source,
  options: AnyOptions<E, M>,
  defaults: ProgramDefaults,
  policies: Retry.Retry
) {
  yield* option(Channel.checkSource("source", source))
  yield* option(Given.record("the options", yield* option(Given.known("the options", options, optionShape.names))))
  const all = { ...defaults, ...Shape.given(options) }
  const given = yield* option(optionShape.read(all))
  const { ackMode, concurrency, expired, maxCrashes, maxRetries, prefetch, reports } = given
  const { lease: leaseMillis, retryDelay: retryMillis, timeout: timeoutMillis, transactional: isTransactional } = given
  const pattern = Channel.describe(source)
  const group = yield* madeName(
    given.group,
    "groupName",
    () => defaults.groupName === undefined ? pattern : defaults.groupName(pattern)
  )
  const label = yield* madeName(
    given.consumer,
    "consumerName",
    () => defaults.consumerName === undefined ? `${hostname()}:${process.pid}` : defaults.consumerName()
  )
  const policy = yield* option(Retry.resolve("retry", options.retry, policies))
  const { exactlyOnce } = options
  const once = typeof exactlyOnce === "boolean" ? undefined : exactlyOnce
  const { ttl } = yield* option(onceShape(leaseMillis).optional("exactlyOnce", once, "exactlyOnce."))
  const isOnce = isTransactional || once !== undefined || exactlyOnce === true
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
    isLimited: all.maxRetries !== undefined,
    membership: {
      group,
      consumer: `${label}:${uniqueName()}`,
      selector: Channel.selector(source),
      start: given.startFrom,
      ordering: given.ordering,
      leaseMillis,
      doneMillis: isOnce ? ttl : undefined,
      maxCrashes
    },
    /** Settings that the consumer gets as they are. */
    consumer: {
      concurrency,
      prefetch: prefetchOf(prefetch, concurrency, isManual),
      blockMillis: given.blockInterval,
      drainMillis: given.drainTimeout,
      maxCrashes,
      slowMillis: given.slowHandler,
      storm: given.pauseWhen,
      expired
    }
  }
})
