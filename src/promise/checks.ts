/**
 * Checks of all values from users of the Promise API, reported by the names they write.
 */
import { Effect, Result } from "effect"
import * as Channel from "../Channel.ts"
import { prefixProblem } from "../broker/keyText.ts"
import { durabilityOf } from "../internal/durabilityOption.ts"
import * as Given from "../internal/optionChecks.ts"
import * as Limits from "../internal/optionLimits.ts"
import * as Shape from "../internal/optionShape.ts"
import { globProblem } from "../internal/pattern.ts"
import { calm, isDate } from "../internal/describe.ts"
import * as Place from "../redis/optionChecks.ts"
import { ioredisNames } from "./ioredisOptions.ts"
import type {
  DlqCleanup,
  DlqQuery,
  PublishOptions,
  RetryStrategy,
  RotifConfig,
  SubscribeBatchOptions,
  SubscribeOptions,
  UnsubscribeOptions
} from "./options.ts"
import type { ChannelOptions } from "./channels.ts"
import { InvalidOption } from "./errors.ts"
import type { PauseGroupOptions, SelectGroupOptions } from "./groups.ts"

type Found = Result.Result<unknown, Given.Problem>
type Check = Shape.Check

const grouped = (value: number) => value.toLocaleString("en")

const isNumber = (value: unknown, least: number, most: number): boolean =>
  typeof value === "number" && value >= least && value <= most

/** A span is a number of milliseconds here. A text such as "1s", which other libraries take, is refused. */
const amount =
  (unit: string, { least, most = Limits.longest }: Omit<Given.Bounds, "usual">): Check => (option, value) =>
    isNumber(value, least, most)
      ? Result.succeed(value)
      : Given.refuse(option, `a number of ${unit} from ${grouped(least)} to ${grouped(most)}`, value)

const millis = (bounds: Omit<Given.Bounds, "usual">): Check => amount("milliseconds", bounds)

const whole = (least: number, most = 100_000): Check => (option, value) =>
  Given.count(option, value as number, { usual: 0, least, most })

const flag: Check = Shape.flag(false)
const func: Check = Shape.handler
const text: Check = Shape.name
const anything: Check = Shape.any
const oneOf = Shape.choice

/** A key of 1 to 512 bytes, or `null`. */
const orderingKey = (option: string, value: unknown): Result.Result<string | null, Given.Problem> =>
  value === null ? Result.succeed(value) : Given.key(option, value, 512)

/** The first check that accepts the value; otherwise the problem of the last one. */
const either = (wanted: string, ...checks: ReadonlyArray<Check>): Check => (option, value) =>
  checks.some((check) => Result.isSuccess(check(option, value)))
    ? Result.succeed(value)
    : Given.refuse(option, wanted, value)

/** Names of the predecessor, and their names here. */
const renamed: Readonly<Record<string, string>> = {
  messageConcurrency: "concurrency",
  healthCheckInterval: "healthInterval"
}

/** Every option may be left out. */
const shape = <O extends object>(checks: { readonly [K in keyof Required<O>]: Check }): Check => {
  const table = Object.entries<Check>(checks).map(([name, check]) => [name, Shape.optional(check)])
  const { names, required } = Shape.shape<O>()(Object.fromEntries(table) as typeof checks)
  return (option, value) => {
    const given = typeof value === "object" && value !== null ? value as Readonly<Record<string, unknown>> : {}
    const old = Object.keys(renamed).find((name) => option === "" && given[name] !== undefined && !names.has(name))
    return old === undefined
      ? required(option === "" ? "the options" : option, value as O, option === "" ? "" : `${option}.`)
      : notBoth(old, `there is no option "${old}": it is "${renamed[old]}" here`)
  }
}

/** Two options that contradict each other: either could be what the user meant. */
const notBoth = (option: string, message: string): Found => Result.fail<Given.Problem>({ option, message })

// The options -----------------------------------------------------------------------------------------------------------

const seconds: Check = amount("seconds", { least: 0.001, most: 315_576_000 })
const position: Check = Given.position

const strategyName = oneOf("exponential", "fixed", "linear", "fibonacci", "custom")

const jitter = either(
  "true, false, \"full\", \"equal\", \"proportional\" or a number from 0 to 1",
  flag,
  oneOf("full", "equal", "proportional"),
  amount("", { least: 0, most: 1 })
)

const strategyShape = shape<RetryStrategy>({
  strategy: strategyName,
  baseDelay: millis(Limits.retryDelay),
  multiplier: (option, value) =>
    isNumber(value, Number.MIN_VALUE, Number.MAX_VALUE)
      ? Result.succeed(value)
      : Given.refuse(option, "a number above 0", value),
  maxDelay: millis({ least: 0, most: Limits.longestKept }),
  jitter,
  customDelayFn: func
})

const strategy: Check = (option, value) =>
  typeof value === "string" ? strategyName(option, value) : strategyShape(option, value)

const retryDelay: Check = (option, value) =>
  typeof value === "function" ? Result.succeed(value) : millis(Limits.retryDelay)(option, value)

const logger: Check = (option, value) =>
  typeof value === "object" && value !== null &&
    ["debug", "info", "warn", "error"].every((method) =>
      typeof (value as Record<string, unknown>)[method] === "function"
    )
    ? Result.succeed(value)
    : Given.refuse(option, "an object with the methods debug, info, warn and error", typeof value)

const prefix: Check = (option, value) => {
  if (typeof value !== "string") return Given.refuse(option, "a string", value)
  const problem = prefixProblem(value)
  return problem === undefined
    ? Result.succeed(value)
    : Result.fail<Given.Problem>({ option, message: `${option} is not valid: ${problem}` })
}

const durability: Check = (option, value) => durabilityOf(option, value)

const channelName: Check = (option, value) =>
  typeof value !== "string" ? Given.refuse(option, "a string", value) : Result.mapError(
    Channel.checkName(value as string, "name"),
    ({ message }): Given.Problem => ({ option, message: `${option}: ${message}` })
  )

/** A channel's name or a pattern. */
const pattern: Check = (option, value) => {
  if (typeof value !== "string") return Given.refuse(option, "a string", value)
  const problem = globProblem(value)
  return problem !== undefined
    ? Result.fail<Given.Problem>({ option, message: `${option} is not valid: ${problem}` })
    : Result.mapError(
      Channel.checkName(value, value.includes("*") ? "pattern" : "name"),
      ({ message }): Given.Problem => ({ option, message: `${option}: ${message}` })
    )
}

const redis: Check = (option, value) => {
  if (value === "memory") return Result.succeed(value)
  if (typeof value === "string") return Place.parseUrl(option, value)
  if (Result.isFailure(Given.record(option, value))) {
    return Result.fail<Given.Problem>({ option, message: `${option} must be a URL, options, or "memory"` })
  }
  const { own, theirs } = splitRedis(value as object)
  if (theirs["keyPrefix"]) {
    return notBoth(`${option}.keyPrefix`, `${option}.keyPrefix cannot be used: the option "prefix" does that`)
  }
  const place = ["url", "host", "sentinels", "cluster", "client"].find((name) => name in (value as object))
  if (theirs["path"] !== undefined && place !== undefined && (value as Record<string, unknown>)[place] !== undefined) {
    return notBoth(`${option}.path`, `${option}.path cannot stand beside ${option}.${place}: give one of them`)
  }
  return Place.check(own, `${option}.`)
}

/** Options of Rotif, and those that only ioredis knows. */
export const splitRedis = (options: object) => {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const theirs = Object.fromEntries(given.filter(([name]) => ioredisNames.has(name) && !Place.names.has(name)))
  const own = Object.fromEntries(given.filter(([name]) => !(name in theirs)))
  const isSomewhere = ["url", "host", "sentinels", "cluster", "client"].some((name) => name in own)
  if (!isSomewhere && ("port" in own || "path" in theirs)) own["host"] = "localhost"
  else if (!isSomewhere) own["url"] = "redis://localhost:6379"
  return { own, theirs }
}

const cleanup = shape<DlqCleanup>({
  enabled: flag,
  maxAge: millis({ least: 0, most: Number.MAX_SAFE_INTEGER }),
  maxSize: whole(0, Number.MAX_SAFE_INTEGER),
  cleanupInterval: millis({ least: 10, most: 86_400_000 }),
  archiveBeforeDelete: flag,
  archivePrefix: channelName
})

const isSchema = (value: unknown): boolean =>
  typeof (value as { readonly "~standard"?: { readonly validate?: unknown } } | null | undefined)?.["~standard"]
    ?.validate === "function"

const channelOptions = shape<ChannelOptions<unknown>>({
  schema: (option, value) =>
    isSchema(value)
      ? Result.succeed(value)
      : Given.refuse(option, "a validator by the Standard Schema interface, such as one of zod", typeof value)
})

const channels: Check = (option, value) => {
  const found = Given.record(option, value)
  if (Result.isFailure(found)) return found
  for (const [name, options] of Object.entries(found.success)) {
    const where = `${option}["${name}"]`
    const checked = options === undefined
      ? found
      : Result.flatMap(channelName(where, name), () => channelOptions(where, options))
    if (Result.isFailure(checked)) return checked
  }
  return found
}

const config = shape<RotifConfig>({
  channels,
  redis,
  maxRetries: whole(0),
  retryDelay,
  retryStrategy: strategy,
  checkDelayInterval: millis({ least: 10 }),
  enableDelayed: flag,
  disableDelayed: flag,
  blockInterval: millis(Limits.blockInterval),
  logger,
  maxStreamLength: (option, value) =>
    value === 0
      ? notBoth(option, `${option} must be at least 1: 0 would drop every message; leave it out for no limit`)
      : whole(1, Number.MAX_SAFE_INTEGER)(option, value),
  minStreamId: position,
  groupNameFn: func,
  consumerNameFn: func,
  deduplicationTTL: seconds,
  generateDedupKey: func,
  generateOrderingKey: func,
  localRoundRobin: flag,
  concurrency: whole(1),
  prefix,
  shards: whole(1, 1024),
  lease: millis(Limits.lease),
  drainTimeout: millis(Limits.drainTimeout),
  healthInterval: millis({ least: 10 }),
  dlqKey: text,
  dlqCleanup: cleanup,
  maxPayloadBytes: whole(1, Number.MAX_SAFE_INTEGER),
  durability,
  reports: either(
    "\"error\", \"warn\", \"info\", \"debug\", false or a function",
    func,
    oneOf("error", "warn", "info", "debug"),
    (option, value) => value === false ? Result.succeed(value) : Given.refuse(option, "false", value)
  ),
  slowHandler: millis(Limits.slowHandler),
  scheduledBatchSize: anything,
  pendingCheckInterval: anything,
  pendingIdleThreshold: anything,
  disablePendingMessageRecovery: anything,
  pipelineBatchSize: anything,
  enablePipelining: anything,
  enableFieldPooling: anything,
  enableBackpressure: anything,
  backpressureThreshold: anything,
  enableHealthCheck: anything
})

const publishing = shape<PublishOptions>({
  // Below 0 is now.
  delayMs: millis({ least: -Number.MAX_VALUE, most: Limits.longestKept }),
  deliverAt: (option, value) => Given.time(option, value),
  exactlyOnce: flag,
  dedupKey: (option, value) => Given.key(option, value, Infinity),
  deduplicationTTL: seconds,
  headers: (option, value) => {
    const found = Given.record(option, value)
    if (Result.isFailure(found)) return found
    for (const [name, header] of Object.entries(found.success)) {
      if (typeof header !== "string") return Given.refuse(`${option}.${name}`, "a string", header)
    }
    return found
  },
  orderingKey,
  durability: (option, value) => value === false ? Result.succeed(value) : durability(option, value),
  attempt: anything
})

const subscribing: { readonly [K in keyof Required<SubscribeOptions>]: Check } = {
  group: text,
  groupName: text,
  consumerName: text,
  maxRetries: whole(0),
  retryDelay,
  retryStrategy: strategy,
  exactlyOnce: flag,
  ordering: oneOf("block", "none"),
  deduplicationTTL: seconds,
  startFrom: (option, value) =>
    isDate(value)
      ? Given.time(option, value)
      : either(
        "\"earliest\", \"latest\", \"$\", a position such as \"1700000000000-0\", or a Date",
        oneOf("earliest", "latest", "$"),
        position
      )(option, value),
  concurrency: whole(1),
  lease: millis(Limits.lease),
  localRoundRobin: flag,
  pauseWhen: shape<NonNullable<SubscribeOptions["pauseWhen"]>>({
    dead: whole(Limits.stormLetters.least, Limits.stormLetters.most),
    within: millis(Limits.stormWithin)
  })
}

const dlqQuery = shape<DlqQuery>({
  channel: pattern,
  limit: whole(0, Number.MAX_SAFE_INTEGER),
  offset: whole(0, Number.MAX_SAFE_INTEGER),
  maxAge: millis({ least: 0, most: Number.MAX_SAFE_INTEGER }),
  group: text,
  reason: oneOf("exhausted", "term", "decode", "crashed", "expired"),
  errorName: text,
  order: oneOf("newest", "oldest")
})

const unsubscribing = shape<UnsubscribeOptions>({ removeGroup: flag })

const hooks = ["beforePublish", "afterPublish", "beforeProcess", "afterProcess", "onError"] as const

/** A class may have more members. An object without any hook, or with a function of another name, has a wrong name in it. */
const middleware: Check = (option, value) => {
  const found = Given.record(option, value)
  if (Result.isFailure(found)) return found
  const given = found.success
  for (const name of hooks) {
    const hook = Given.func(name, given[name])
    if (Result.isFailure(hook)) return hook
  }
  if (Object.getPrototypeOf(given) !== Object.prototype && hooks.some((name) => given[name] !== undefined)) return found
  return Given.known(option, given, new Set(hooks))
}

// The answers -----------------------------------------------------------------------------------------------------------

/** The problem in the words of the user: the called method, and the option. */
const told = (where: string, { message, option }: Given.Problem): InvalidOption =>
  new InvalidOption({
    option,
    message: option !== "" && message.startsWith(option)
      ? `${where}: the option "${option}"${message.slice(option.length)}`
      : `${where}: ${message}`
  })

/** A check of options; returns the problem, if there is one. */
const checker = (
  where: string,
  check: Check,
  more: (options: Readonly<Record<string, unknown>>) => Found = anything.bind(undefined, "")
) =>
(options: unknown): InvalidOption | undefined => {
  if (options === undefined) return undefined
  const found = Result.flatMap(check("", options), () => more(options as Readonly<Record<string, unknown>>))
  return Result.isFailure(found) ? told(where, found.failure) : undefined
}

export const checkConfig = checker(
  "NotificationManager",
  config,
  ({ disableDelayed, enableDelayed }) =>
    enableDelayed === true && disableDelayed === true
      ? notBoth("disableDelayed", "disableDelayed and enableDelayed cannot both be true")
      : Result.succeed(undefined)
)

export const checkPublish = checker(
  "publish",
  publishing,
  ({ delayMs, deliverAt }) =>
    delayMs !== undefined && deliverAt !== undefined
      ? notBoth("deliverAt", "deliverAt cannot stand beside delayMs: give one of them")
      : Result.succeed(undefined)
)

const oneGroup = ({ group, groupName }: Readonly<Record<string, unknown>>) =>
  group !== undefined && groupName !== undefined && group !== groupName
    ? notBoth("groupName", "groupName is another name than group: give one of them")
    : Result.succeed(undefined)

export const checkSubscribe = checker("subscribe", shape<SubscribeOptions>(subscribing), oneGroup)

export const checkSubscribeBatch = checker(
  "subscribeBatch",
  shape<SubscribeBatchOptions>({
    ...subscribing,
    size: whole(1, Limits.batchSize.most),
    within: millis(Limits.batchWithin)
  }),
  (options) =>
    options["size"] === undefined
      ? Given.refuse("size", `a whole number from 1 to ${Limits.batchSize.most}`, undefined)
      : oneGroup(options)
)

export const checkDlqQuery = checker("getDLQMessages", dlqQuery)
export const checkUnsubscribe = checker("unsubscribe", unsubscribing)
export const checkPauseGroup = checker(
  "pauseGroup",
  shape<PauseGroupOptions>({ reason: text, by: text, pattern, until: anything })
)
const selectingGroup = shape<SelectGroupOptions>({ pattern })
export const checkResumeGroup = checker("resumeGroup", selectingGroup)
export const checkIsGroupQuiet = checker("isGroupQuiet", selectingGroup)
export const checkMiddleware = checker("use", (_, value) => middleware("the middleware", value))

/** A check of one argument. */
const argument = (where: string, option: string, check: Check) => (value: unknown): InvalidOption | undefined => {
  const found = check(option, value)
  return Result.isFailure(found) ? told(where, found.failure) : undefined
}

export const checkHandler = (where: string, handler: unknown) => argument(where, "handler", func)(handler)
export const checkPattern = argument("subscribe", "pattern", pattern)
/** The name itself is checked when its channel is made. */
const checkChannel = argument(
  "publish",
  "channel",
  (option, value) => typeof value === "string" ? Result.succeed(value) : Given.refuse(option, "a string", value)
)
export const checkLetterId = (where: string, letterId: unknown) => argument(where, "letterId", text)(letterId)
export const checkCount = argument("requeueFromDLQ", "count", whole(0, Number.MAX_SAFE_INTEGER))
/** Arguments of a publish without the content of the payload. No window is longer than this many seconds. */
export const checkMessage = (
  channel: unknown,
  payload: unknown,
  options: unknown,
  mostSeconds: number
): InvalidOption | undefined => {
  // It is refused later, after the hooks.
  calm(payload)
  return checkChannel(channel) ?? checkPublish(options) ?? checkWindow(options, mostSeconds)
}

const checkWindow = (options: unknown, mostSeconds: number): InvalidOption | undefined => {
  const { deduplicationTTL } = (options ?? {}) as PublishOptions
  if (deduplicationTTL === undefined || deduplicationTTL <= mostSeconds) return undefined
  return new InvalidOption({
    option: "deduplicationTTL",
    message: `publish: the option "deduplicationTTL" must be at most ${grouped(mostSeconds)} seconds, it is ${
      grouped(deduplicationTTL)
    }: that is 7 days, or the deduplicationTTL of the NotificationManager if it is longer`
  })
}

export const checkMessages = argument(
  "publishBatch",
  "messages",
  (option, value) => {
    if (!Array.isArray(value)) return Given.refuse(option, "a list of { channel, payload, options }", value)
    for (const [i, message] of (value as ReadonlyArray<unknown>).entries()) {
      const found = Result.flatMap(
        Given.record(`${option}[${i}]`, message),
        (given) => Given.known(option, given, new Set(["channel", "payload", "options"]), `${option}[${i}].`)
      )
      if (Result.isFailure(found)) return found
    }
    return Result.succeed(value)
  }
)

/** A name that a function of the configuration makes. */
export const madeName = (option: string, make: () => unknown): Effect.Effect<string, InvalidOption> =>
  Effect.fromResult(
    Result.mapError(
      Given.made(option, make, (made) => Given.name(option, made)),
      (problem) => told("subscribe", problem)
    )
  )

/** The key by which two messages are the same. */
export const madeKey = (where: string, make: () => unknown): Result.Result<string, InvalidOption> =>
  Result.mapError(
    Given.made("generateDedupKey", make, (made) => Given.key("generateDedupKey", made, Infinity)),
    (problem) => told(where, problem)
  )

/** The ordering key of a message whose publish gives none. */
export const madeOrderingKey = (make: () => unknown): Effect.Effect<string | null, InvalidOption> =>
  Effect.fromResult(
    Result.mapError(
      Given.made("generateOrderingKey", make, (made) => orderingKey("generateOrderingKey", made)),
      (problem) => told("publish", problem)
    )
  )
