/**
 * Handling messages: a subscription is a consumer of a group, and runs as long as its scope.
 *
 * @since 0.1.0
 */
import type { DateTime, Duration, Option } from "effect"
import { Cause, Context, Data, Effect, Exit, Layer, Queue, Result, Scope, Stream } from "effect"
import { hostname } from "node:os"
import type { BrokerError, Delivery, Selector, Start } from "./Broker.ts"
import { Broker, CommitRefused, GroupRemoved } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import * as Message from "./Message.ts"
import * as Middleware from "./Middleware.ts"
import * as Retry from "./Retry.ts"
import * as Transaction from "./Transaction.ts"
import * as Promoter from "./duties/promoter.ts"
import * as Ending from "./internal/ending.ts"
import { failureOf } from "./internal/failure.ts"
import { isDone } from "./internal/immediate.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import * as Reporting from "./internal/reports.ts"
import type { HandlerOutcome, Settlement } from "./internal/settlement.ts"
import { ackSettlement, holdSettlement } from "./internal/settlement.ts"
import * as Unnamed from "./internal/unnamedGroups.ts"
import * as Chain from "./middleware/composition.ts"
import { keyOf as keyOfMessage } from "./publisher/identity.ts"
import { prefetchOf } from "./subscription/capacity.ts"
import * as Consumer from "./subscription/consumer.ts"
import * as FailureVerdict from "./subscription/failureVerdict.ts"
import type { Processing } from "./subscription/handlerTimes.ts"
import type { Counts, HeldDelivery } from "./subscription/heldDelivery.ts"
import type { KeyOf } from "./subscription/onceGate.ts"

/**
 * Where a new group begins on channels that exist already: with the oldest message that another group has not settled (without other
 * groups, with the oldest there is; never with what all have settled and only waits to be removed), with the next one published, after a
 * position (as in a receipt), or with the first one published at or after a time.
 *
 * @category models
 * @since 0.1.0
 */
export type StartFrom =
  | "earliest"
  | "latest"
  | { readonly position: string }
  | { readonly time: DateTime.DateTime.Input }

/**
 * What every subscription of a program shares unless it says otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface Defaults {
  /** The group of a subscription that names none, from its channel name or pattern. Default: that name itself. */
  readonly groupName?: ((source: string) => string) | undefined
  /** The first part of a consumer's name; a random part is added. Default `host:pid`. */
  readonly consumerName?: (() => string) | undefined
  /** Default 1. */
  readonly concurrency?: number | undefined
  /** Default 30 seconds. */
  readonly lease?: Duration.Input | undefined
  /** Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** Default 30 seconds; with `Rotif.layerMemory` 0. */
  readonly drainTimeout?: Duration.Input | undefined
  /** Retries after the first attempt, for every subscription that does not say otherwise. Default 5. */
  readonly maxRetries?: number | undefined
  /** Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * The default policy: what happens after a failure where the subscription has no `retry`, and after defects and timeouts, which no
   * `retry` decides about, unless `Retry.layer` has a default. Default: again after `retryDelay`.
   */
  readonly retry?: Retry.AnyRule | undefined
  /** Default 3. */
  readonly maxCrashes?: number | undefined
  /**
   * Where is told what goes wrong with messages: dead letters, defects, and what is given back again and again. A level of the log, `"None"`,
   * or a function that gets every report. Default `"Warn"`.
   *
   * **Details**: in the log a group has at most 10 lines in 10 seconds; then a line tells how many were left out. A failure that is retried is
   * a line of level `Debug`; from the eighth attempt on each doubling is a warning. A function gets all of it. It is called for up to 100
   * reports at a time, each call may take 5 seconds, and up to 10,000 reports wait for it; more are left out, and a line tells how many.
   */
  readonly reports?: Reports | undefined
}

/**
 * Where reports go: a level of the log, nowhere, or a function.
 *
 * @category models
 * @since 0.1.0
 */
export type Reports = Reporting.Sink

/**
 * What went wrong with one message of a group.
 *
 * - `DeadLetter`: the group gave it up; `reason` and `tag` say why. - `Defect`: its handler died, and it is tried again.
 * - `Failure`: its handler failed, and it is tried again. - `Interrupted`: its handler ended by interruption, and it is given back.
 * - `Released`: it was given back by hand. - `Busy`: another message with its `exactlyOnce` key is being handled.
 * - `LeaseLost`: its lease ended before it was settled. - `SlowHandler`: its handler runs for longer than `slowHandler`.
 * - `Expired`: its time to live ended, and it is dropped (`expired: "drop"`); a line for debugging, and a warning for the 8th, 16th, 32nd, … of a
 * channel. - `NotJudged`: what decides about it died, which is a mistake of Rotif's; it is given back.
 *
 * Those that may happen to one message again and again (`Interrupted`, `Released`, `Busy`, `NotJudged`) are told at rounds 1, 2, 4, 8, ….
 *
 * @category models
 * @since 0.1.0
 */
export type Report = Reporting.Report

/**
 * Options of a stream of messages: its group, how many messages it holds, and where a new group begins.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions {
  /**
   * The consumer group. Every group gets every message; the consumers of one group share them. Default: the name of the channel
   * or the pattern.
   */
  readonly group?: string | undefined
  /** The first part of the consumer's name; a random part is added, because names must be unique among living consumers. */
  readonly consumer?: string | undefined
  /** How many handlers run at a time. 1 (the default) keeps the order of each channel, but for redeliveries. */
  readonly concurrency?: number | undefined
  /**
   * At most so many messages wait in this process beside those being handled; they are leased to it. At most `concurrency + prefetch` are held,
   * over all channels and shards. Default: about as many as the handlers finish in 50 ms, by the time they took, from 0 to 100 or `concurrency`,
   * whichever is more; with `ackMode: "manual"` as many as `concurrency`. What has waited for 250 ms while all handlers are busy is given back if
   * another consumer of the group reads its channel; that costs no attempt.
   */
  readonly prefetch?: number | undefined
  /** Where a new group begins. Default `"earliest"`. It has no effect on a group that exists. */
  readonly startFrom?: StartFrom | undefined
  /**
   * How long a message belongs to this consumer without a renewal (it is renewed three times in this time). It decides how long
   * the messages of a killed process wait; the consumers of one group use the same. Default 30 seconds, at least 100 ms.
   */
  readonly lease?: Duration.Input | undefined
  /** How long one read waits at the server. A message ends the wait at once. Default 5 seconds. */
  readonly blockInterval?: Duration.Input | undefined
  /** How long the end of the subscription waits for running handlers before it interrupts them. Default 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
  /**
   * After this many lost consumers that had begun its handler, a message becomes a dead letter with reason `crashed`. The first hand-out does
   * not count, because nothing is noted of it. Default 3; less than 2 is 2, because nothing is given up before it was tried alone.
   */
  readonly maxCrashes?: number | undefined
  /**
   * What becomes of a message that is not handed to the handler because its time to live (`expiresIn` of the publish) has ended: a dead
   * letter with reason `expired` (the default), or nothing.
   */
  readonly expired?: "dead-letter" | "drop" | undefined
  /** Where is told what goes wrong with its messages. Default: as the program says (`Defaults.reports`). */
  readonly reports?: Reports | undefined
  /**
   * A handler that runs for longer is told once: in the log, in `Health` (as long as it runs), and in the metric `rotif.process.slow`. It is
   * noticed within a third of the lease. Default: `health.slowHandler` of the program, 5 minutes.
   */
  readonly slowHandler?: Duration.Input | undefined
}

/**
 * How deliveries are recognised as the same piece of work.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExactlyOnce<S extends Channel.Source> {
  /**
   * The key of a message: 1 to 512 bytes. Messages of one channel with the same key are handled to completion once by the group
   * within `ttl`, however often they are published. Default: the stored message itself, so that whatever a publish accepts as new is
   * handled, also when it has the id of an earlier one. A function that throws, or gives no such string, is a failure of the attempt.
   */
  readonly key?: ((message: Message.Message<S>) => string) | undefined
  /** For how long it counts that a key was done, by the clock of the backend. At least the lease. Default 1 day. */
  readonly ttl?: Duration.Input | undefined
}

/**
 * The key that `exactlyOnce` made of a message cannot be used: it is a failure of the attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOnceKey extends Data.TaggedError("InvalidOnceKey")<{
  readonly message: string
}> {}

/**
 * What a handler needs beside the transaction that a transactional subscription gives it.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<R, Transactional extends boolean> = Transactional extends true
  ? Exclude<R, Transaction.Transaction>
  : R

/**
 * Options of a subscription: those of a stream, the handler, and what happens before and after it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<
  S extends Channel.Source,
  E,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
> extends StreamOptions {
  /**
   * Handles one message. When it succeeds the message is acknowledged, when it fails or dies it is retried. It is interrupted when
   * the lease is lost, and at the end of the subscription; the message is then handled again, and no attempt is counted.
   */
  readonly handler: (message: Message.Message<S>) => Effect.Effect<unknown, E, R>
  /**
   * Middleware around each attempt, the first outermost; the middleware of the program (`Middleware.layer`) is outside of it. Its errors
   * are errors of the handler, for `retry` to decide about.
   */
  readonly middleware?: Ms | undefined
  /** How long one attempt may take; longer is a failure (`TimeoutError`). Default: as long as it wants. */
  readonly timeout?: Duration.Input | undefined
  /** `"manual"`: the success of the handler settles nothing; the message is held until it is settled. Default `"auto"`. */
  readonly ackMode?: "auto" | "manual" | undefined
  /**
   * The policy after a failure: a `Schedule`, a delay, a function of (attempt, message, error) to a delay, a decision for each error tag
   * (`Retry.make`), or the name of a policy of `Retry.layer`. The default policy decides about defects and timeouts. Default: the default
   * policy (`Retry.layer`, else `retry` of `Rotif.layer`, else again after `retryDelay`).
   */
  readonly retry?: Retry.PolicyOrName<NoInfer<E | Middleware.ProcessErrors<Ms>>, Message.Message<S>> | undefined
  /**
   * Retries after the first attempt; then the message becomes a dead letter with reason `exhausted`. Default 5; where a schedule
   * decides, as many as it has.
   */
  readonly maxRetries?: number | undefined
  /** How long a failed message waits for its next attempt where `retry` does not decide. Default 1 second. */
  readonly retryDelay?: Duration.Input | undefined
  /**
   * Each message is handled to completion once: it is remembered as done in the same step as its acknowledgement, and another
   * delivery of it is then acknowledged without being handled; with `key`, other messages of the same key are, too. While one is being
   * handled, another one waits; no attempt is counted. Default `false`.
   *
   * It cannot undo what a handler did before it failed or was killed: an effect is exactly once when it is part of the
   * transaction, or itself idempotent. See `docs/exactly-once.md`.
   */
  readonly exactlyOnce?: boolean | ExactlyOnce<S> | undefined
  /**
   * What the handler publishes and writes through its `Transaction` is applied together with the acknowledgement, or not at all. It
   * includes `exactlyOnce`. Default `false`.
   */
  readonly transactional?: Transactional | undefined
}

/**
 * An option of a subscription cannot be used. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSubscription extends Data.TaggedError("InvalidSubscription")<{
  readonly option: string
  readonly message: string
}> {}

/**
 * Counts since the subscription started or was reset, in this process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats extends Readonly<Counts> {
  /** Handlers running now. */
  readonly inFlight: number
  /** Messages leased to this process now: running, waiting, and settlements not stored yet. */
  readonly held: number
  /** How long messages took, from their decoding to the end of their handler, whatever it was. `undefined` before the first has ended. */
  readonly processing: Processing | undefined
}

/**
 * A running subscription.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription {
  /** The name of the channel, the pattern, or the names of a union joined by `,`. */
  readonly pattern: string
  readonly group: string
  readonly consumer: string
  readonly stats: Effect.Effect<Stats>
  /** Begins to count anew. The totals of the group are kept by the backend (`Stats`), and stay. */
  readonly resetStats: Effect.Effect<void>
  readonly isPaused: Effect.Effect<boolean>
  /** Takes no more messages, lets running handlers finish, and gives back what waited here. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Ends it: takes no more, finishes what runs (until `drainTimeout`), gives the rest back, leaves the group. */
  readonly drain: Effect.Effect<void>
  /** `drain`; with `removeGroup` the group is forgotten too, with everything it had not handled. */
  readonly unsubscribe: (
    options?: { readonly removeGroup?: boolean | undefined }
  ) => Effect.Effect<void, BrokerError>
  /** Completes when the subscription has ended. Fails with `GroupRemoved` when it ended because somebody removed its group. */
  readonly ended: Effect.Effect<void, GroupRemoved>
}

/** What a subscription reads, and how it is. */
interface Watched {
  readonly selector: Selector
  readonly vitals: () => Consumer.Vitals
  /** What becomes of an attempt that failed, by the policy of the subscription. */
  readonly verdict: (
    message: Message.Envelope,
    delivery: Delivery,
    cause: Cause.Cause<unknown>
  ) => Effect.Effect<Settlement>
}

/**
 * The subscriptions that run in this program, and what they share.
 *
 * @category services
 * @since 0.1.0
 */
export class Subscriptions extends Context.Service<Subscriptions, {
  readonly defaults: Defaults & Pick<StreamOptions, "slowHandler">
  readonly running: Set<Subscription>
  /** The ends of those that have not ended, also of those that are ending. */
  readonly endings: Ending.Registry
  /** What those look at who watch over a subscription. */
  readonly watched: WeakMap<Subscription, Watched>
  readonly middleware: Middleware.Program
  /** The policies of the program, the default of its options among them. */
  readonly retry: Retry.Retry
  /** How much each group has in the log. */
  readonly budgets: Reporting.Budgets
  /** What promotes retries where nothing else of the program promotes; `undefined` where it does. */
  readonly retries: Promoter.RetryPromoters | undefined
  /** Streams that ended with a failure, by group and pattern, until one is begun again: what became of them. */
  readonly failures: Map<string, Failed>
  /** Those without a group of their own. */
  readonly unnamed: Unnamed.Unnamed
}>()("rotif/Subscriptions") {}

/** A stream whose consumer failed: nobody handles its messages any more. */
interface Failed {
  readonly group: string
  readonly pattern: string
  readonly message: string
}

/** These and no more: the options of a layer, which they are taken from, also have the passwords of its connections. */
const defaultsOf = (
  options: Defaults & Pick<StreamOptions, "slowHandler">
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

/**
 * Dies of defaults that cannot be used: they would fail at the first subscription otherwise, or in a process that nobody looks at.
 *
 * @internal
 */
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

/**
 * The registry of running subscriptions as a layer. With it the subscriptions end that are left.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRegistry = (
  defaults: Defaults & Pick<StreamOptions, "slowHandler"> & { readonly delayed?: boolean | undefined } = {}
): Layer.Layer<Subscriptions> =>
  Layer.effect(
    Subscriptions,
    Effect.gen(function*() {
      yield* checkDefaults(defaults)
      const endings = yield* Ending.registry
      return {
        defaults: defaultsOf(defaults),
        running: new Set<Subscription>(),
        endings,
        watched: new WeakMap<Subscription, Watched>(),
        middleware: yield* Middleware.Program,
        retry: Retry.within(yield* Retry.Retry, { default: defaults.retry, policies: new Map() }),
        budgets: new Map(),
        retries: defaults.delayed === false ? new Map() : undefined,
        failures: new Map(),
        unnamed: new Map()
      }
    })
  )

/**
 * Lists the subscriptions that run in this program.
 *
 * @category operations
 * @since 0.1.0
 */
export const running: Effect.Effect<ReadonlyArray<Subscription>, never, Subscriptions> = Subscriptions.useSync((
  { running }
) => [...running])

const invalid = (option: string, message: string) => new InvalidSubscription({ option, message })

const option = <A>(found: Result.Result<A, Given.Problem>): Effect.Effect<A, InvalidSubscription> =>
  Effect.fromResult(Result.mapError(found, (problem) => new InvalidSubscription(problem)))

const nameOption = (name: string, value: unknown) => option(Given.name(name, value))

/** A name that was given, or that a function makes. */
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

const unsubscribeNames: ReadonlySet<string> = new Set(["removeGroup"])

/** What says something else than whether the group is to go would be taken for "no" in silence. */
const removeGroupOf = (options: { readonly removeGroup?: boolean | undefined } | undefined): Effect.Effect<boolean> =>
  Effect.flatMap(
    Given.orDie(Given.known("the options of unsubscribe", options, unsubscribeNames)),
    (options) => Given.orDie(Given.flag("removeGroup", options?.removeGroup, false))
  )

/** What fails beside the handler: no policy of the handler's errors knows it. */
type OwnError = Cause.TimeoutError | CommitRefused | InvalidOnceKey

const isOwn = (error: unknown): error is CommitRefused | InvalidOnceKey =>
  error instanceof CommitRefused || error instanceof InvalidOnceKey

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
  middleware === undefined || (Array.isArray(middleware) && middleware.every(Chain.isProcess))
    ? Result.succeed(middleware)
    : Given.refuse("middleware", "a list of middleware of handling (Middleware.process)", middleware)

/** So many streams that have failed are remembered. */
const mostFailures = 100
const failureKey = (group: string, pattern: string) => `${group}\n${pattern}`

let counter = 0
const uniqueName = (label: string) =>
  `${label}:${Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(4))).toString("hex")}${
    (counter++).toString(36)
  }`

/**
 * Starts a subscription in the current scope and returns its handle.
 *
 * **Details**: it has joined its group when this succeeds: a message published from then on reaches the group whatever happens.
 * Closing the scope drains it. Each message is handled at least once: when the process is lost its leases expire and others
 * take over; what was handled and not yet acknowledged is then handled again.
 *
 * **Errors**: `InvalidSubscription` for a bad option; `BrokerError` when the group could not be joined. While it runs it reports
 * failures of the backend to the log and goes on; only its end stops it.
 *
 * **Example** (Handling orders)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Subscription } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const billing = Subscription.make(Orders, {
 *   group: "billing",
 *   concurrency: 16,
 *   handler: (message) => Effect.log(`charging ${message.payload.id}`)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
>(
  source: S,
  options: Options<S, E, R, Ms, Transactional>
): Effect.fn.Return<
  Subscription,
  InvalidSubscription | BrokerError,
  | HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional>
  | Channel.DecodingServices<S>
  | Broker
  | Subscriptions
  | Scope.Scope
> {
  // What the chain provides to the handler is not needed here; what it fails with counts as an error of the handler.
  type Failed = E | Middleware.ProcessErrors<Ms> | OwnError
  type Needs = HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional> | Channel.DecodingServices<S>
  const broker = yield* Broker
  const {
    budgets,
    defaults,
    endings,
    failures,
    middleware: program,
    retries,
    retry: shared,
    running,
    unnamed,
    watched
  } = yield* Subscriptions
  const policies = Retry.within(yield* Retry.Retry, shared)
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
  const name = uniqueName(label)
  const concurrency = yield* countOption(
    "concurrency",
    Given.first(options.concurrency, defaults.concurrency),
    Limits.concurrency
  )
  const prefetch = options.prefetch === undefined
    ? undefined
    : yield* countOption("prefetch", options.prefetch, { usual: 0, least: 0 })
  const maxCrashes = yield* countOption(
    "maxCrashes",
    Given.first(options.maxCrashes, defaults.maxCrashes),
    Limits.maxCrashes
  )
  const limit = Given.first(options.maxRetries, defaults.maxRetries)
  const maxRetries = yield* countOption("maxRetries", limit, Limits.maxRetries)
  const leaseMillis = yield* spanOption("lease", Given.first(options.lease, defaults.lease), Limits.lease)
  const blockMillis = yield* spanOption(
    "blockInterval",
    Given.first(options.blockInterval, defaults.blockInterval),
    Limits.blockInterval
  )
  const drainMillis = yield* spanOption(
    "drainTimeout",
    Given.first(options.drainTimeout, defaults.drainTimeout),
    Limits.drainTimeout
  )
  const retryMillis = yield* spanOption(
    "retryDelay",
    Given.first(options.retryDelay, defaults.retryDelay),
    Limits.retryDelay
  )
  const timeoutMillis = yield* spanOption("timeout", options.timeout, { usual: 0, least: 1 })
  const slowMillis = yield* spanOption(
    "slowHandler",
    Given.first(options.slowHandler, defaults.slowHandler),
    Limits.slowHandler
  )
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
  const onceOptions = typeof options.exactlyOnce === "boolean"
    ? undefined
    : yield* option(Given.known("exactlyOnce", options.exactlyOnce, onceNames, "exactlyOnce."))
  yield* option(Given.func("exactlyOnce.key", onceOptions?.key))
  const isOnce = isTransactional || onceOptions !== undefined || options.exactlyOnce === true
  const doneMillis = isOnce
    ? yield* spanOption("exactlyOnce.ttl", onceOptions?.ttl, {
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
  const selector = Channel.selector(source)
  const decoderFor = Channel.decoderFor(source)
  const settled = Effect.succeed<HandlerOutcome>(
    ackMode === "manual" ? holdSettlement : ackSettlement
  )

  const border = program.process.length === 0 ? undefined : Chain.makeBorder()
  const tooLong = new Cause.TimeoutError(`an attempt took longer than ${timeoutMillis} ms`)
  const verdictOf = FailureVerdict.make<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>({
    name: `"${pattern}" for group "${group}"`,
    policy,
    fallback: policies.default ?? retryMillis,
    // A handler's own TimeoutError is one of its errors; only this very one is ours. Nor was the policy written for what the middleware of
    // the program fails with.
    isUnknown: (error) => error === tooLong || isOwn(error) || border?.isForeign(error) === true,
    maxRetries,
    isLimited: limit !== undefined,
    retryMillis,
    nowMillis: (channel) => broker.recurring.nowMillis(broker.shardsOf({ _tag: "Channels", names: [channel] })[0] ?? 0)
  })

  const retry = (
    message: Message.Message<S>,
    held: HeldDelivery,
    consumer: Consumer.Consumer,
    cause: Cause.Cause<Failed>
  ) =>
    verdictOf(message, held.delivery, cause, () => {
      consumer.counts.failed++
    })

  const handlerName = `the handler of ${JSON.stringify(pattern)}`
  const once = (message: Message.Message<S>): Effect.Effect<unknown, E | Cause.TimeoutError, R> => {
    const running = Given.effect(handlerName, () => options.handler(message))
    return timeoutMillis === 0
      ? running
      : Effect.timeoutOrElse(running, { duration: timeoutMillis, orElse: () => Effect.fail(tooLong) })
  }

  // The chain is typed for any message, and its errors and services are in the type of the options alone: `attempt` has them again.
  const own = Chain.composeProcess(options.middleware ?? [], once as unknown as Middleware.ProcessNext)
  const chained = (border === undefined
    ? own
    : Chain.composeProcess(program.process, (message) => border.mark(own(message)))) as unknown as (
      message: Message.Message<S>
    ) => Effect.Effect<unknown, Failed, Needs>

  /** One attempt, with what it has put into its scope: that ends before anything is settled. */
  const attempt = (held: HeldDelivery, message: Message.Message<S>): Effect.Effect<unknown, Failed, Needs> =>
    Effect.onExitPrimitive(chained(message), (exit) => Scope.closeUnsafe(held.scope, exit))

  /** Runs the handler with a transaction, and applies it. */
  const transact = (
    held: HeldDelivery,
    consumer: Consumer.Consumer,
    message: Message.Message<S>
  ): Effect.Effect<HandlerOutcome, Failed, Needs> =>
    Effect.suspend(() => {
      held.isTransactional = true
      const transaction = Transaction.makeUnsafe(held.delivery.channel)
      return attempt(held, message).pipe(
        Effect.provideService(Transaction.Transaction, transaction),
        Effect.ensuring(Effect.sync(transaction.close)),
        Effect.flatMap((): Effect.Effect<HandlerOutcome, CommitRefused> => {
          const { messages, writes } = transaction
          if (messages.length === 0 && writes.length === 0) return Effect.succeed(ackSettlement)
          return Effect.flatMap(
            consumer.commit(held, { messages, writes }),
            // By now the delivery has left this process, whichever way.
            (outcome) => typeof outcome === "string" ? Effect.succeed(holdSettlement) : Effect.fail(outcome)
          )
        })
      ) as Effect.Effect<HandlerOutcome, Failed, Needs>
    })

  /** Decoded at once, where the schema can: it is an `Exit` then. */
  const decoded = (
    held: HeldDelivery,
    consumer: Consumer.Consumer
  ): Effect.Effect<Message.Message<S>, Channel.InvalidPayload, Channel.DecodingServices<S>> => {
    const { channel, payload } = held.delivery
    const decode = decoderFor(channel)
    // The selector and the decoders come from the same source; only a broken backend hands out anything else.
    if (decode === undefined) {
      return Effect.die(new Error(`"${channel}" is not a channel of the subscription "${pattern}"`))
    }
    const value = decode(payload)
    return isDone(value)
      ? Exit.succeed(Message.makeUnsafe<S>(held, value.value, group, consumer))
      : Effect.map(value, (value) => Message.makeUnsafe<S>(held, value, group, consumer))
  }

  const undecodable = (cause: Cause.Cause<unknown>): Settlement => ({
    _tag: "Bury",
    failure: failureOf("decode", cause)
  })

  const handle = (
    held: HeldDelivery,
    consumer: Consumer.Consumer
  ): Effect.Effect<HandlerOutcome, never, Needs> => {
    const run = (message: Message.Message<S>) =>
      Effect.matchCauseEffect(isTransactional ? transact(held, consumer, message) : attempt(held, message), {
        onFailure: (cause: Cause.Cause<Failed>) => retry(message, held, consumer, cause),
        onSuccess: (outcome) => isTransactional ? Effect.succeed(outcome as HandlerOutcome) : settled
      })
    // Decoded already to find its key.
    if (held.prepared !== undefined) return run(held.prepared as Message.Message<S>)
    const message = decoded(held, consumer)
    return isDone(message) ? run(message.value) : Effect.matchCauseEffect(message, {
      onFailure: (cause) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
      onSuccess: run
    })
  }

  const keyOf = (
    held: HeldDelivery,
    consumer: Consumer.Consumer
  ): ReturnType<KeyOf<Channel.DecodingServices<S>>> => {
    if (onceOptions?.key === undefined) {
      return Effect.succeed(keyOfMessage(held.delivery))
    }
    const { key } = onceOptions
    return Effect.matchCauseEffect(decoded(held, consumer), {
      onFailure: (cause) => Effect.succeed(undecodable(cause)),
      onSuccess: (message) => {
        held.prepared = message
        return Effect.matchCauseEffect(
          Effect.suspend(() => {
            const made = Given.key("what exactlyOnce.key gives", key(message), 512)
            return Result.isSuccess(made)
              ? Effect.succeed(made.success)
              : Effect.fail(new InvalidOnceKey({ message: made.failure.message }))
          }),
          { onFailure: (cause) => retry(message, held, consumer, cause), onSuccess: Effect.succeed }
        )
      }
    })
  }

  // The end of the scope is the end of the subscription. When that has ended before, nothing of it is left in the scope.
  const guard = yield* Scope.fork(yield* Effect.scope)
  let isOver = false
  let isGroupUnwanted = false
  let removal: Exit.Exit<void, BrokerError> | undefined
  const removeGroup = Effect.flatMap(Effect.exit(broker.removeGroup(group, selector)), (exit) => {
    removal = exit
    return exit
  })
  const afterEnd: Effect.Effect<void> = Effect.gen(function*() {
    if (isGroupUnwanted) {
      // Whoever asked for it from inside of a handler is not there any more to be told.
      yield* Effect.tapError(
        removeGroup,
        (error) => Effect.logWarning(`rotif: group "${group}" was not removed: ${error.message}`)
      ).pipe(Effect.ignore)
    }
    isOver = true
    yield* Scope.close(guard, Exit.void)
  })

  if (retries !== undefined) {
    yield* Scope.provide(Promoter.keepRetries(broker, broker.shardsOf(selector), retries), guard)
  }
  if (options.group === undefined) yield* Scope.provide(Unnamed.enter(unnamed, group, pattern), guard)
  const reporter = yield* Scope.provide(Reporting.make(budgets, group, reports), guard)
  const consumer: Consumer.Consumer = yield* Consumer.make({
    broker,
    membership: { group, consumer: name, selector, start, leaseMillis, doneMillis, maxCrashes },
    concurrency,
    prefetch: prefetchOf(prefetch, concurrency, ackMode === "manual"),
    blockMillis,
    drainMillis,
    maxCrashes,
    slowMillis,
    reporter,
    expired,
    keyOf: isOnce ? keyOf : undefined,
    handle,
    verdict: (held, consumer, cause) =>
      Effect.matchCauseEffect(decoded(held, consumer), {
        onFailure: (cause: Cause.Cause<unknown>) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
        onSuccess: (message) => retry(message, held, consumer, cause)
      }),
    onEnd: () => running.delete(subscription),
    afterEnd
  }).pipe(
    (consumer) =>
      border === undefined
        ? consumer
        : Effect.updateContext(consumer, (context: Context.Context<Needs | Scope.Scope>) =>
          Chain.complete(program, context)),
    Effect.onError(() => Scope.close(guard, Exit.void))
  )

  const subscription: Subscription = {
    pattern,
    group,
    consumer: name,
    stats: Effect.sync(() => ({
      ...consumer.counts,
      inFlight: consumer.inFlight(),
      held: consumer.held(),
      processing: consumer.processing()
    })),
    resetStats: Effect.sync(consumer.reset),
    isPaused: Effect.sync(consumer.isPaused),
    pause: consumer.pause,
    resume: consumer.resume,
    drain: consumer.ending.ask,
    unsubscribe: (options) =>
      Effect.flatMap(removeGroupOf(options), (isUnwanted) => {
        if (!isUnwanted) return consumer.ending.ask
        if (isOver) return removal !== undefined && Exit.isSuccess(removal) ? Effect.void : removeGroup
        isGroupUnwanted = true
        return Effect.andThen(consumer.ending.ask, Effect.suspend(() => removal ?? Effect.void))
      }),
    ended: Effect.andThen(
      consumer.ending.over,
      Effect.suspend(() => {
        const removed = consumer.removed()
        return removed === undefined ? Effect.void : Effect.fail(removed)
      })
    )
  }
  watched.set(subscription, {
    selector,
    vitals: consumer.vitals,
    verdict: (message, delivery, cause) =>
      verdictOf(message as unknown as Message.Message<S>, delivery, cause, () => {
        consumer.counts.failed++
      })
  })
  running.add(subscription)
  failures.delete(failureKey(group, pattern))
  endings.keep(consumer.ending)
  yield* Scope.addFinalizer(guard, Effect.suspend(() => isOver ? Effect.void : consumer.ending.ask))
  return subscription
})

/**
 * A subscription as a layer: it runs as long as the layer, and `Layer.launch` runs it as a program.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false
>(
  source: S,
  options: Options<S, E, R, Ms, Transactional>
): Layer.Layer<
  never,
  InvalidSubscription | BrokerError,
  Exclude<
    | HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional>
    | Channel.DecodingServices<S>
    | Broker
    | Subscriptions,
    Scope.Scope
  >
> => Layer.effectDiscard(make(source, options))

/** So many messages of a stream may be unsettled, beside `concurrency`: batches of some hundreds are filled. */
const streamPrefetch = 500

/**
 * What is different for a stream.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessageStreamOptions<S extends Channel.Source, E = unknown>
  extends StreamOptions, Pick<Options<S, never, never>, "exactlyOnce" | "maxRetries" | "retryDelay">
{
  /** How many messages may be unsettled beside `concurrency`. Default 500. */
  readonly prefetch?: number | undefined
  /** What `message.fail(error)` does; as `retry` of a subscription. Default: the default policy. */
  readonly retry?: Retry.PolicyOrName<E, Message.Message<S>> | undefined
  /**
   * What a settlement comes to whose lease was lost: by default nothing, but a line in the log: another consumer of the group has the message,
   * or will have it. `"fail"`: it fails with `LeaseLost`.
   */
  readonly leaseLost?: "ignore" | "fail" | undefined
}

/**
 * The messages themselves, to be settled by whoever takes them: `ack`, `fail`, `nack`, `term` or `release` each one. A message that is
 * not settled is held and renewed, counts against `concurrency` and `prefetch`, and is given back when the stream ends.
 *
 * **Details**: up to 500 messages may be unsettled by default, so that a batch (`Stream.groupedWithin`) is filled before it is settled. A lease
 * that was lost does not fail the stream, unless `leaseLost` is `"fail"`. `message.fail(error)` says that the attempt has failed, and what
 * `retry`, `maxRetries` and `retryDelay` decide happens to the message.
 *
 * **Errors**: those of `make`; `GroupRemoved` when somebody removes the group.
 *
 * **Example** (Storing in batches)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Channel, Subscription } from "rotif"
 *
 * const Clicks = Channel.make("clicks", { payload: Schema.Struct({ page: Schema.String }) })
 * const store = (pages: ReadonlyArray<string>) => Effect.log(`${pages.length} pages`)
 *
 * const stored = Subscription.stream(Clicks, { group: "statistics" }).pipe(
 *   Stream.groupedWithin(100, "1 second"),
 *   Stream.runForEach((batch) =>
 *     Effect.matchEffect(store(batch.map(({ payload }) => payload.page)), {
 *       onSuccess: () => Effect.forEach(batch, ({ ack }) => ack, { concurrency: "unbounded", discard: true }),
 *       onFailure: (error) => Effect.forEach(batch, ({ fail }) => fail(error), { concurrency: "unbounded", discard: true })
 *     })
 *   )
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const stream: {
  <S extends Channel.Source, E = unknown>(
    source: S,
    options: MessageStreamOptions<S, E> & { readonly leaseLost: "fail" }
  ): MessageStream<S, Message.LeaseLost, E>
  <S extends Channel.Source, E = unknown>(source: S, options?: MessageStreamOptions<S, E>): MessageStream<S, never, E>
} = <S extends Channel.Source, E>(
  source: S,
  options?: MessageStreamOptions<S, E>
): MessageStream<S, never, E> =>
  Stream.unwrap(Effect.gen(function*() {
    const { leaseLost: given, retry, ...rest } = options ?? {}
    const leaseLost = yield* option(Given.choice("leaseLost", given, ["ignore", "fail"]))
    // What is in the queue is held by the consumer, whose capacity bounds it.
    const queue = yield* Queue.unbounded<Message.StreamMessage<S, never, E>, Cause.Done | GroupRemoved>()
    let lostLeases = 0
    const side: Message.StreamSide = {
      verdict: (message, delivery, error) =>
        Effect.suspend(() => watched.get(subscription)!.verdict(message, delivery, Cause.fail(error))),
      lost: leaseLost === "fail" ? Effect.fail : (error) => {
        lostLeases++
        return Reporting.isTold(lostLeases)
          ? Effect.logWarning(`rotif: ${error.message} (${lostLeases} times so far in this stream)`)
          : Effect.void
      }
    }
    const { failures, watched } = yield* Subscriptions
    const subscription = yield* make(source, {
      ...rest,
      // The policy is for what `fail` is given; the handler itself fails with nothing.
      retry: retry as Retry.PolicyOrName<never, Message.Message<S>> | undefined,
      prefetch: rest.prefetch ?? streamPrefetch,
      ackMode: "manual",
      handler: (message: Message.Message<S>) => Queue.offer(queue, Message.streamUnsafe<S, never, E>(message, side))
    })
    yield* Effect.forkScoped(Effect.matchEffect(subscription.ended, {
      onFailure: (removed) => Queue.fail(queue, removed),
      onSuccess: () => Queue.end(queue)
    }))
    const { group, pattern } = subscription
    yield* Effect.addFinalizer((exit) =>
      // That its group was removed is in the log already.
      Exit.isFailure(exit) && Cause.findErrorOption(exit.cause).pipe(isRemoval) ? Effect.void : Reporting.tellEnd(
        `the stream of "${pattern}" for group "${group}"`,
        exit,
        (first) => {
          if (failures.size < mostFailures) {
            failures.set(failureKey(group, pattern), { group, pattern, message: `its stream ended: ${first}` })
          }
        }
      )
    )
    return Stream.fromQueue(queue)
  }))

const isRemoval = (error: Option.Option<unknown>) => error._tag === "Some" && error.value instanceof GroupRemoved

type MessageStream<S extends Channel.Source, E, Error> = Stream.Stream<
  Message.StreamMessage<S, E, Error>,
  InvalidSubscription | BrokerError | GroupRemoved,
  Channel.DecodingServices<S> | Broker | Subscriptions
>
