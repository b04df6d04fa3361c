/**
 * Rotif for programs that do not use Effect: one class, with Promises.
 *
 * `NotificationManager` is a facade over the layers of Rotif: it runs their effects, and has the same guarantees.
 *
 * @since 0.1.0
 */
import type { Schema } from "effect"
import { Cause, Context, Duration, Effect, Exit, Layer, ManagedRuntime, Scope } from "effect"
import * as Batch from "./Batch.ts"
import * as Channel from "./Channel.ts"
import * as DeadLetters from "./DeadLetters.ts"
import * as Inspector from "./Inspector.ts"
import type * as CoreMessage from "./Message.ts"
import * as Publisher from "./Publisher.ts"
import * as Rotif from "./Rotif.ts"
import * as Core from "./Subscription.ts"
import * as Activity from "./internal/activity.ts"
import { Bounded } from "./internal/boundedMap.ts"
import { compile } from "./internal/pattern.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Ending from "./internal/ending.ts"
import * as Unnamed from "./internal/unnamedGroups.ts"
import type { AnyChannels, AnyName, ChannelName, ChannelPattern, InputOf, MessageOf } from "./promise/channels.ts"
import * as Checks from "./promise/checks.ts"
import * as Connecting from "./promise/connecting.ts"
import type { DlqMessage, DlqStats } from "./promise/deadLetters.ts"
import * as Letters from "./promise/deadLetters.ts"
import * as Sameness from "./promise/dedupKey.ts"
import type { GroupRemoved } from "./promise/errors.ts"
import { ManagerStopped, PublishIncomplete } from "./promise/errors.ts"
import type { GroupInfo, GroupPause, PauseGroupOptions, SelectGroupOptions } from "./promise/groups.ts"
import * as Groups from "./promise/groups.ts"
import type { HealthStatus } from "./promise/health.ts"
import * as Health from "./promise/health.ts"
import type { Middleware } from "./promise/hooks.ts"
import * as Hooks from "./promise/hooks.ts"
import type { InspectOptions, RepairReport, VerifyReport } from "./promise/inspection.ts"
import { loggerLayer } from "./promise/logging.ts"
import type { Payload, RotifMessage } from "./promise/message.ts"
import * as Message from "./promise/message.ts"
import type {
  DlqQuery,
  PublishOptions,
  RedisClient,
  RotifConfig,
  SubscribeBatchOptions,
  SubscribeOptions,
  UnsubscribeOptions
} from "./promise/options.ts"
import * as Options from "./promise/options.ts"
import { policyOf } from "./promise/retry.ts"
import { toPromise, translated } from "./promise/running.ts"
import type { Validator } from "./promise/validation.ts"
import { validated, validatorsOf } from "./promise/validation.ts"

export {
  BrokerError,
  DurabilityNotReached,
  GroupRemoved,
  InvalidChannelName,
  InvalidOption,
  InvalidPayload,
  LeaseLost,
  ManagerStopped,
  PayloadTooLarge,
  PublishIncomplete,
  PublishUncertain,
  RotifError,
  Unavailable,
  UnrecoverableError,
  UnrecoverableError as Reject
} from "./promise/errors.ts"
export {
  type AnyChannels,
  type AnyName,
  type ChannelName,
  type ChannelOptions,
  type ChannelPattern,
  type InputOf,
  type MatchingNames,
  type MessageOf,
  type OutputOf
} from "./promise/channels.ts"
export { type StandardSchema, type ValidationIssue, type ValidationResult } from "./promise/standardSchema.ts"
export { type GroupInfo, type GroupPause, type PauseGroupOptions, type SelectGroupOptions } from "./promise/groups.ts"
export { type HealthStatus } from "./promise/health.ts"
export { type Middleware } from "./promise/hooks.ts"
export { type DlqMessage, type DlqStats } from "./promise/deadLetters.ts"
export { type Finding, type InspectOptions, type RepairReport, type VerifyReport } from "./promise/inspection.ts"
export { type Payload, type RotifMessage } from "./promise/message.ts"
export {
  type DlqCleanup,
  type DlqQuery,
  type DlqReason,
  type Durability,
  type Logger,
  type PublishOptions,
  type RedisClient,
  type RedisOptions,
  type Reports,
  type RetryStrategy,
  type RetryStrategyName,
  type RotifConfig,
  type SubscribeBatchOptions,
  type SubscribeOptions,
  type UnsubscribeOptions
} from "./promise/options.ts"

export { type Report } from "./internal/report.ts"

/**
 * The result of `publish` for a message that was published before.
 *
 * @category models
 * @since 0.1.0
 */
export const DUPLICATE = "DUPLICATE"

/**
 * Counts of one subscription since it started, in this process.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscriptionStats {
  /** Handled and acknowledged. */
  readonly messages: number
  /** Skipped, because a copy was already handled (`exactlyOnce`). */
  readonly duplicates: number
  /** Attempts that failed and are retried. */
  readonly retries: number
  /** Messages given up: they became dead letters. */
  readonly failures: number
  /** Handed to this process and not settled yet. */
  readonly pending: number
  /** When the last message was handled and acknowledged, in milliseconds since 1970. */
  readonly lastMessageAt: number | undefined
}

/**
 * A running subscription.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription {
  readonly id: string
  readonly pattern: string
  readonly group: string
  readonly isPaused: boolean
  readonly stats: () => SubscriptionStats
  /** Takes no more messages, and lets running handlers finish. */
  readonly pause: () => Promise<void>
  readonly resume: () => Promise<void>
  /**
   * Ends the subscription: finishes running handlers, gives the rest back. With `removeGroup` (or `true`) the group is removed, with all messages
   * that it has not handled.
   */
  readonly unsubscribe: (options?: UnsubscribeOptions | boolean) => Promise<void>
  /** Resolves when the subscription has ended; with `GroupRemoved` if it ended because its group was removed. It never rejects. */
  readonly ended: Promise<GroupRemoved | undefined>
}

/** A message that is checked, and ready to be stored. */
interface Prepared {
  readonly channel: Channel.Channel<string, Schema.Unknown>
  readonly value: Payload
  readonly publishing: Publisher.PublishOptions
}

const resultOf = (receipt: Publisher.Receipt): string => receipt._tag === "Duplicate" ? DUPLICATE : receipt.id

type Source = Channel.Channel<string, Schema.Unknown> | Channel.Pattern<Schema.Unknown>
type Received = CoreMessage.Message<Source>
/** The options of every subscription. */
type Shared = Core.AttemptOptions<Source, unknown>

/** At most this many channels are kept with their options. */
const mostChannels = 1000

/**
 * Publishes and handles messages with Promises.
 *
 * **Details**: it connects with the first call that needs Redis (or `waitUntilReady`); if that fails, the next call tries again. A failed call
 * rejects with an `Error` whose message says what to do; see `docs/promise.md`.
 *
 * **Errors**: the constructor throws `InvalidOption` for an option that is not known or not valid.
 *
 * **Example** (Publishing and handling)
 *
 * ```ts check
 * import { NotificationManager } from "rotif/promise"
 *
 * const manager = new NotificationManager({ redis: "redis://localhost:6379", maxRetries: 3 })
 *
 * await manager.subscribe("orders.*", async (message) => {
 *   console.log(message.payload)
 * }, { group: "billing" })
 * await manager.publish("orders.placed", { id: "o-1" })
 *
 * await manager.stopAll()
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export class NotificationManager<Channels extends object = AnyChannels> {
  readonly #config: RotifConfig
  readonly #client: RedisClient | undefined
  readonly #layer: Layer.Layer<Rotif.Services, unknown>
  readonly #scope = Scope.makeUnsafe("parallel")
  readonly #channels = new Bounded<string, Channel.Channel<string, Schema.Unknown>>(mostChannels)
  readonly #validators: ReadonlyMap<string, Validator>
  readonly #middleware: Array<Middleware> = []
  readonly #subscriptions = new Set<Subscription>()
  #runtime: ManagedRuntime.ManagedRuntime<Rotif.Services, unknown> | undefined
  readonly #calls = Calls.make()
  readonly #end: Ending.Ending

  constructor(given: RotifConfig<Channels> = {}) {
    const config = given as RotifConfig
    const problem = Checks.checkConfig(config)
    if (problem !== undefined) throw problem
    this.#config = config
    this.#validators = validatorsOf(config.channels ?? {})
    const { client, options: redis } = Connecting.redisOf(config)
    this.#client = client
    const archive = config.dlqCleanup?.archivePrefix ?? Options.defaults.archive
    const options = Options.rotifOptions(
      config,
      (letters) =>
        Effect.tryPromise({ try: () => this.#run(Letters.archive(archive, letters)), catch: (error) => error })
    )
    const services = redis === undefined
      ? Rotif.layerMemoryWith(options)
      : Rotif.layer({ ...redis, ...options })
    const { healthInterval } = config
    const watched = healthInterval === undefined
      ? services
      : Layer.provideMerge(
        Layer.effectDiscard(Effect.forkScoped(Health.watch(() => this.getSubscriptions(), healthInterval))),
        services
      )
    this.#layer = Layer.provideMerge(watched, loggerLayer(config.logger))
    this.#end = Effect.runSync(Ending.make({
      begin: () => this.#calls.close(),
      run: Scope.close(this.#scope, Exit.void).pipe(
        Effect.andThen(
          Effect.suspend(() =>
            this.#calls.over(this.#runtime?.cachedContext === undefined ? Calls.startMillis : Calls.callsMillis)
          )
        ),
        Effect.andThen(Effect.suspend(() => this.#runtime?.disposeEffect ?? Effect.void)),
        Effect.ensuring(Effect.sync(() => this.#client?.disconnect()))
      ),
      isLeftToAskers: () => this.#calls.isLeftToAskers() && this.#endings().every((ending) => ending.isLeftToAskers())
    }))
  }

  /** The ends of all subscriptions of this manager. */
  #endings(): ReadonlyArray<Ending.Ending> {
    const context = this.#runtime?.cachedContext
    return context === undefined
      ? []
      : [
        ...Context.get(context, Core.Subscriptions).endings.all,
        ...Context.get(context, DeadLetters.DeadLetters).endings
      ]
  }

  /** Runs a call. After the stop has begun, only calls of running handlers. */
  #run<A>(effect: Effect.Effect<A, unknown, Rotif.Services>): Promise<A> {
    return toPromise(
      this.#calls.run(Effect.suspend(() => this.#provided(effect)), () => new ManagerStopped())
    )
  }

  #provided<A>(effect: Effect.Effect<A, unknown, Rotif.Services>): Effect.Effect<A, unknown> {
    let runtime = this.#runtime
    if (runtime === undefined) {
      if (this.#end.hasBegun()) return Effect.fail(new ManagerStopped())
      const made = ManagedRuntime.make(this.#layer)
      this.#runtime = runtime = made
      // A start that failed is not kept: the next call tries again.
      Activity.detach(Effect.catchCause(made.contextEffect, () =>
        Effect.suspend(() => {
          if (this.#runtime === made) this.#runtime = undefined
          return made.disposeEffect
        })))
    }
    // Not as a fiber of the runtime: a caller that waits for a failed start must get its error, and not be interrupted.
    return runtime.cachedContext === undefined
      ? Effect.flatMap(runtime.contextEffect, (context) => Effect.provideContext(effect, context))
      : Effect.provideContext(effect, runtime.cachedContext)
  }

  #channel(name: string): Channel.Channel<string, Schema.Unknown> {
    let channel = this.#channels.get(name)
    if (channel === undefined) {
      const { maxStreamLength, minStreamId } = this.#config
      const limits = maxStreamLength === undefined && minStreamId === undefined
        ? undefined
        : { maxLength: maxStreamLength, minId: minStreamId }
      const plain = Channel.make(name, { ...Options.anything, limits })
      const validator = this.#validators.get(name)
      channel = validator === undefined ? plain : validated(plain, validator)
      this.#channels.set(name, channel)
    }
    return channel
  }

  #source(pattern: string): Source {
    if (!pattern.includes("*")) return this.#channel(pattern)
    const matches = compile(pattern)
    const own = Array.from(this.#validators.keys()).filter(matches).map((name) => this.#channel(name))
    return { ...Channel.pattern(pattern, Options.anything), own }
  }

  /**
   * The client of ioredis for the same server, for other uses. It connects at its first use; `stopAll` closes it.
   */
  get redis(): RedisClient {
    if (this.#client === undefined) throw new Error("a NotificationManager in memory has no Redis client")
    return this.#client
  }

  /** Connects; rejects if that fails. */
  waitUntilReady(): Promise<void> {
    return this.#run(Effect.void)
  }

  // Publishing -------------------------------------------------------------------------------------------------------

  #prepare(
    hooks: ReadonlyArray<Middleware>,
    channel: string,
    payload: Payload,
    options: PublishOptions | undefined
  ): Effect.Effect<Prepared, unknown> {
    const config = this.#config
    return Effect.gen({ self: this }, function*() {
      yield* Hooks.before(hooks, "beforePublish", channel, payload, options)
      const value = yield* Sameness.plain(channel, payload)
      const validator = this.#validators.get(channel)
      if (validator !== undefined) yield* validator("encode", value)
      const key = options?.exactlyOnce === true || options?.dedupKey !== undefined
        ? yield* Effect.try({
          try: () => Sameness.publishKey(config, channel, value, options.dedupKey),
          catch: (error) => error
        })
        : undefined
      const seconds = options?.deduplicationTTL ?? config.deduplicationTTL ?? Options.defaults.deduplicationSeconds
      const { generateOrderingKey } = config
      const orderingKey = options?.orderingKey !== undefined || generateOrderingKey === undefined
        ? options?.orderingKey
        : yield* Checks.madeOrderingKey(() => generateOrderingKey({ channel, payload: value }))
      const publishing: Publisher.PublishOptions = {
        headers: options?.headers,
        orderingKey,
        delay: options?.delayMs === undefined ? undefined : Math.max(0, options.delayMs),
        at: options?.deliverAt,
        id: key === undefined ? undefined : Sameness.freshId(),
        throttle: key === undefined ? undefined : { key, window: Duration.seconds(seconds) },
        durability: options?.durability
      }
      // A name that cannot be used throws; here it fails the publish.
      return { channel: yield* Effect.try({ try: () => this.#channel(channel), catch: (e) => e }), value, publishing }
    })
  }

  /**
   * Publishes a message. When it resolves the message is stored, even without any subscription.
   *
   * **Details**: it resolves to the id of the message, or to `"DUPLICATE"` if it was published before (only with `exactlyOnce` or `dedupKey`).
   *
   * **Errors**: rejects if the message is not stored: a payload without a JSON form, an option or a name that cannot be used, Redis unavailable
   * or refusing, an error of `beforePublish`. After `PublishUncertain` it may be stored, and after `DurabilityNotReached` it is stored, but not
   * as durably as requested.
   */
  publish<P = Payload>(channel: AnyName<Channels>, payload: P, options?: PublishOptions): Promise<string>
  publish<Name extends ChannelName<Channels>>(
    channel: Name,
    payload: InputOf<Channels[Name]>,
    options?: PublishOptions
  ): Promise<string>
  publish(channel: string, payload: Payload, options?: PublishOptions): Promise<string> {
    const problem = Checks.checkMessage(channel, payload, options, Options.mostSecondsOf(this.#config))
    if (problem !== undefined) return Promise.reject(problem)
    const hooks = Hooks.aroundPublish(this.#middleware)
    return this.#run(
      Effect.gen({ self: this }, function*() {
        const prepared = yield* this.#prepare(hooks, channel, payload, options)
        const receipt = yield* Publisher.publish(prepared.channel, prepared.value, prepared.publishing)
        const result = resultOf(receipt)
        yield* Hooks.after(hooks, "afterPublish", channel, payload, result, options)
        return result
      })
    )
  }

  /**
   * Publishes many messages in few round trips. The results are those of `publish`, in order. The messages of one channel are stored in order.
   *
   * **Errors**: all messages are checked before any is sent. If some are then not stored, it rejects with `PublishIncomplete`, which has the result
   * or the error of each.
   */
  publishBatch(
    messages: ReadonlyArray<
      {
        [Name in ChannelName<Channels>]: {
          readonly channel: Name
          readonly payload: InputOf<Channels[Name]>
          readonly options?: PublishOptions | undefined
        }
      }[ChannelName<Channels>]
    >
  ): Promise<ReadonlyArray<string>> {
    const mostSeconds = Options.mostSecondsOf(this.#config)
    const problem = Checks.checkMessages(messages) ??
      messages.map(({ channel, options, payload }) => Checks.checkMessage(channel, payload, options, mostSeconds))
        .find(Boolean)
    if (problem !== undefined) return Promise.reject(problem)
    const hooks = Hooks.aroundPublish(this.#middleware)
    return this.#run(
      Effect.gen({ self: this }, function*() {
        const prepared = yield* Effect.forEach(
          messages,
          (message) => this.#prepare(hooks, message.channel, message.payload, message.options)
        )
        const results = new Array<string | Error>(messages.length)
        const byChannel = Map.groupBy(prepared.keys(), (index) => prepared[index]!.channel.name)
        yield* Effect.forEach(byChannel.values(), (indexes) =>
          Effect.map(
            this.#publishAll(indexes.map((index) => prepared[index]!)),
            (outcomes) => indexes.forEach((index, i) => results[index] = outcomes[i]!)
          ), { concurrency: 8, discard: true })
        yield* Effect.forEach(messages, ({ channel, options, payload }, index) => {
          const result = results[index]!
          return typeof result === "string"
            ? Hooks.after(hooks, "afterPublish", channel, payload, result, options)
            : Effect.void
        })
        return results.every((result) => typeof result === "string")
          ? results
          : yield* Effect.fail(new PublishIncomplete({ results }))
      })
    )
  }

  /** Publishes messages of one channel; the result of each. */
  #publishAll(
    messages: ReadonlyArray<Prepared>
  ): Effect.Effect<ReadonlyArray<string | Error>, never, Publisher.Publisher> {
    return Effect.matchEffect(
      Publisher.publishAll(messages[0]!.channel, messages.map(({ value }) => value), (_, i) => messages[i]!.publishing),
      {
        onSuccess: (receipts) => Effect.succeed(receipts.map(resultOf)),
        onFailure: (error) =>
          Effect.succeed(
            error instanceof Publisher.PublishIncomplete
              ? error.outcomes.map((outcome) =>
                outcome instanceof Error ? translated(outcome) as Error : resultOf(outcome)
              )
              : messages.map(() => translated(error) as Error)
          )
      }
    )
  }

  // Subscribing ------------------------------------------------------------------------------------------------------

  /**
   * Handles the messages of a channel, or of all channels that match a pattern: `*` stands for one segment between dots, `**` for one or
   * more. When it resolves, every message that is published from then on reaches the group.
   *
   * **Errors**: rejects if an option or the pattern cannot be used, or the group could not be joined. While it runs, it logs failures of Redis and
   * continues.
   */
  subscribe<P = Payload>(
    pattern: AnyName<Channels>,
    handler: (message: RotifMessage<P>) => unknown,
    options?: SubscribeOptions
  ): Promise<Subscription>
  subscribe<Pattern extends ChannelPattern<Channels>>(
    pattern: Pattern,
    handler: (message: MessageOf<Channels, Pattern>) => unknown,
    options?: SubscribeOptions
  ): Promise<Subscription>
  subscribe(
    pattern: string,
    // oxlint-disable-next-line typescript/no-explicit-any -- the message of either overload
    handler: (message: any) => unknown,
    options: SubscribeOptions = {}
  ): Promise<Subscription> {
    const problem = Checks.checkPattern(pattern) ?? Checks.checkHandler("subscribe", handler) ??
      Checks.checkSubscribe(options)
    return problem !== undefined ? Promise.reject(problem) : this.#subscribe(
      pattern,
      options,
      (source, shared) =>
        Core.make(source, { ...shared, handler: (message) => this.#handle(handler, Message.fromMessage(message)) })
    )
  }

  /**
   * Handles messages in batches: `handler` gets an array of up to `size` messages, as soon as there are that many, or `within` milliseconds after
   * the first one came.
   *
   * **Details**: when the handler ends, all its messages are acknowledged. `message.retry()`, `message.reject()` and `message.ack()` give one
   * message an outcome of its own. When the handler throws, its other messages come again in batches of half the size, down to one: a bad
   * message ends as the only dead letter, and no message is given up for the error of another one. See `docs/batches.md`.
   *
   * **Errors**: those of `subscribe`.
   *
   * **Example** (Storing rows)
   *
   * ```ts
   * import { NotificationManager } from "rotif/promise"
   *
   * declare const insertAll: (rows: ReadonlyArray<unknown>) => Promise<void>
   * const manager = new NotificationManager({ redis: "redis://localhost:6379" })
   *
   * await manager.subscribeBatch("orders.created", async (messages) => {
   *   await insertAll(messages.map(({ payload }) => payload))
   * }, { group: "warehouse", size: 100, within: 200 })
   * ```
   */
  subscribeBatch<P = Payload>(
    pattern: AnyName<Channels>,
    handler: (messages: ReadonlyArray<RotifMessage<P>>) => unknown,
    options: SubscribeBatchOptions
  ): Promise<Subscription>
  subscribeBatch<Pattern extends ChannelPattern<Channels>>(
    pattern: Pattern,
    handler: (messages: ReadonlyArray<MessageOf<Channels, Pattern>>) => unknown,
    options: SubscribeBatchOptions
  ): Promise<Subscription>
  subscribeBatch(
    pattern: string,
    // oxlint-disable-next-line typescript/no-explicit-any -- the messages of either overload
    handler: (messages: ReadonlyArray<any>) => unknown,
    options: SubscribeBatchOptions
  ): Promise<Subscription> {
    const problem = Checks.checkPattern(pattern) ?? Checks.checkHandler("subscribeBatch", handler) ??
      Checks.checkSubscribeBatch(options)
    return problem !== undefined ? Promise.reject(problem) : this.#subscribe(
      pattern,
      options,
      (source, shared) =>
        Core.batch(source, {
          ...shared,
          size: options.size,
          within: options.within,
          handler: (messages) => this.#handleBatch(handler, messages)
        })
    )
  }

  #subscribe(
    pattern: string,
    options: SubscribeOptions,
    start: (
      source: Source,
      shared: Shared
    ) => Effect.Effect<Core.Subscription, unknown, Rotif.Services | Scope.Scope>
  ): Promise<Subscription> {
    const config = this.#config
    return this.#run(Effect.gen({ self: this }, function*() {
      const { consumerNameFn, groupNameFn } = config
      const group = options.group ?? options.groupName ??
        (yield* Checks.madeName(
          "groupNameFn",
          () => groupNameFn === undefined ? `grp:${pattern}` : groupNameFn(pattern)
        ))
      const consumer = options.consumerName ??
        (consumerNameFn === undefined ? undefined : yield* Checks.madeName("consumerNameFn", () => consumerNameFn()))
      const source = yield* Effect.try({ try: () => this.#source(pattern), catch: (error) => error })
      let unnamed: Scope.Closeable | undefined
      if (options.group === undefined && options.groupName === undefined) {
        unnamed = yield* Scope.fork(this.#scope)
        yield* Scope.provide(Unnamed.enter((yield* Core.Subscriptions).unnamed, group, pattern), unnamed)
      }
      const lease = options.lease ?? config.lease ?? Options.defaults.leaseMillis
      const seconds = options.deduplicationTTL ?? config.deduplicationTTL ?? Options.defaults.deduplicationSeconds
      const subscription = yield* start(source, {
        group,
        consumer,
        concurrency: options.concurrency,
        // Nothing waits here that another consumer of the group could take.
        prefetch: options.localRoundRobin ?? config.localRoundRobin ? 0 : undefined,
        lease,
        startFrom: Options.startOf(options.startFrom),
        maxRetries: options.maxRetries,
        pauseWhen: options.pauseWhen,
        ordering: options.ordering,
        retry: policyOf(options, config),
        exactlyOnce: options.exactlyOnce === true
          ? { key: Sameness.handleKey(config), ttl: Math.max(seconds * 1000, lease) }
          : false
      }).pipe(
        Effect.provideService(Scope.Scope, this.#scope),
        Effect.onError(() => unnamed === undefined ? Effect.void : Scope.close(unnamed, Exit.void))
      )
      if (unnamed !== undefined) {
        yield* Effect.forkIn(Effect.andThen(subscription.ended, Scope.close(unnamed, Exit.void)), this.#scope)
      }
      return this.#keep(subscription)
    }))
  }

  #failed(message: RotifMessage, error: unknown): Effect.Effect<void> {
    return Message.isWish(error) ? Effect.void : Hooks.after(this.#middleware, "onError", message, error as Error)
  }

  #handle(handler: (message: RotifMessage) => unknown, message: RotifMessage): Effect.Effect<void, unknown> {
    const all = this.#middleware
    return Hooks.before(all, "beforeProcess", message).pipe(
      Effect.andThen(Message.handle((message) => Hooks.outside(() => handler(message)), message)),
      Effect.tapError((error) => this.#failed(message, error)),
      Effect.tap(() => Hooks.after(all, "afterProcess", message))
    )
  }

  /** Runs the handler of a batch between the hooks of each message. A message whose `beforeProcess` throws fails by itself. */
  #handleBatch(
    handler: (messages: ReadonlyArray<RotifMessage>) => unknown,
    messages: ReadonlyArray<Received>
  ): Effect.Effect<ReadonlyMap<Received, Batch.Outcome<unknown>>> {
    const all = this.#middleware
    return Effect.gen({ self: this }, function*() {
      const outcomes = new Map<Received, Batch.Outcome<unknown>>()
      const ready: Array<Received> = []
      for (const message of messages) {
        const before = yield* Effect.exit(Hooks.before(all, "beforeProcess", Message.fromMessage(message)))
        if (Exit.isSuccess(before)) ready.push(message)
        else outcomes.set(message, Batch.fail(Cause.squash(before.cause)))
      }
      const found = ready.length === 0
        ? []
        : yield* Message.handleBatch(
          (messages) => Hooks.outside(() => handler(messages)),
          ready.map((message) => Message.fromMessage(message))
        )
      for (const [i, message] of ready.entries()) outcomes.set(message, found[i]!)
      if (all.length > 0) {
        for (const [message, outcome] of outcomes) {
          const error = Batch.errorOf(outcome)
          const mine = Message.fromMessage(message)
          yield* error === undefined ? Hooks.after(all, "afterProcess", mine) : this.#failed(mine, error.value)
        }
      }
      return outcomes
    })
  }

  #keep(core: Core.Subscription): Subscription {
    const subscriptions = this.#subscriptions
    const ended = Effect.matchEffect(core.ended, {
      onFailure: (removed) => Effect.succeed(translated(removed) as GroupRemoved),
      onSuccess: () => Effect.succeed(undefined)
    })
    const subscription: Subscription = {
      id: core.consumer,
      pattern: core.pattern,
      group: core.group,
      get isPaused() {
        return Effect.runSync(core.isPaused)
      },
      stats: () => {
        const { dead, duplicates, held, lastMessageAtMillis, processed, retried } = Effect.runSync(core.stats)
        return {
          messages: processed,
          duplicates,
          retries: retried,
          failures: dead,
          pending: held,
          lastMessageAt: lastMessageAtMillis
        }
      },
      pause: () => toPromise(core.pause),
      resume: () => toPromise(core.resume),
      unsubscribe: (given) => {
        const options = typeof given === "boolean" ? { removeGroup: given } : given
        const problem = Checks.checkUnsubscribe(options)
        return problem === undefined ? toPromise(core.unsubscribe(options)) : Promise.reject(problem)
      },
      ended: toPromise(Effect.tap(ended, () => Effect.sync(() => subscriptions.delete(subscription))))
    }
    subscriptions.add(subscription)
    return subscription
  }

  /** The running subscriptions. */
  getSubscriptions(): Array<Subscription> {
    return [...this.#subscriptions]
  }

  /** The counts of all running subscriptions. */
  getSubscriptionStats(): Array<SubscriptionStats & Pick<Subscription, "id" | "pattern" | "group">> {
    return this.getSubscriptions().map(({ group, id, pattern, stats }) => ({ id, pattern, group, ...stats() }))
  }

  /**
   * Adds hooks around publishing and handling, after the existing ones; also for running subscriptions.
   *
   * **Errors**: throws `InvalidOption` if a hook is no function, or has an unknown name.
   */
  use(middleware: Middleware): void {
    const problem = Checks.checkMiddleware(middleware ?? null)
    if (problem !== undefined) throw problem
    this.#middleware.push(middleware)
  }

  // Groups -----------------------------------------------------------------------------------------------------------

  /**
   * Pauses a group in all processes: its subscriptions stop taking messages, also those that start later, until `resumeGroup` or `until`. The pause
   * is stored in Redis. `subscription.pause` is another thing: it is of one subscription in this process. Both hold together.
   */
  pauseGroup(group: string, options: PauseGroupOptions): Promise<void> {
    const problem = Checks.checkPauseGroup(options ?? null)
    return problem === undefined ? this.#run(Groups.pause(group, options)) : Promise.reject(problem)
  }

  /** Ends pauses of a group: the one of this pattern, or all of them. Resolves to those that were in force. */
  resumeGroup(group: string, options?: SelectGroupOptions): Promise<Array<GroupPause>> {
    const problem = Checks.checkResumeGroup(options)
    return problem === undefined ? this.#run(Groups.resume(group, options)) : Promise.reject(problem)
  }

  /** Whether a group is paused and none of its messages is being handled, in any process; see `docs/groups.md`. */
  isGroupQuiet(group: string, options?: SelectGroupOptions): Promise<boolean> {
    const problem = Checks.checkIsGroupQuiet(options)
    return problem === undefined ? this.#run(Groups.isQuiet(group, options)) : Promise.reject(problem)
  }

  /** Lists all groups, also those without subscriptions, with what they read, what waits, and their pauses. */
  listGroups(): Promise<Array<GroupInfo>> {
    return this.#run(Groups.list)
  }

  /**
   * Removes a group from a channel or pattern, or from all that it subscribed to, with all messages that it has not handled. Its running
   * subscriptions end with `GroupRemoved`. Resolves to the patterns that were there.
   */
  removeGroup(group: string, pattern?: string): Promise<ReadonlyArray<string>> {
    return this.#run(Groups.remove(group, pattern))
  }

  // Dead letters -----------------------------------------------------------------------------------------------------

  /**
   * Handles dead letters, existing and future ones. `ack` deletes a dead letter. If the handler ends without it, the letter is kept, and is not
   * offered again; if the handler throws, the letter is offered again after a delay.
   */
  subscribeToDLQ(handler: (message: RotifMessage) => unknown): Promise<void> {
    const problem = Checks.checkHandler("subscribeToDLQ", handler)
    if (problem !== undefined) return Promise.reject(problem)
    return this.#run(
      DeadLetters.subscribe({
        name: this.#config.dlqKey ?? Options.defaults.dlqKey,
        handler: (letter) =>
          Message.handle((message) => Hooks.outside(() => handler(message)), Message.fromLetter(letter))
      }).pipe(Effect.provideService(Scope.Scope, this.#scope))
    )
  }

  /** Sends dead letters back to the groups that gave them up, the oldest first, as attempt 1. Returns their number. Default: at most 10. */
  requeueFromDLQ(count: number = Options.defaults.requeued): Promise<number> {
    const problem = Checks.checkCount(count)
    if (problem !== undefined) return Promise.reject(problem)
    return count === 0
      ? Promise.resolve(0)
      : this.#run(Effect.map(DeadLetters.requeueAll({}, { limit: count }), ({ moved }) => moved))
  }

  /** Counts dead letters, by channel, with the times of the first and the last one. */
  getDLQStats(): Promise<DlqStats> {
    return this.#run(Letters.stats)
  }

  /** Returns a dead letter; `undefined` if there is none with this id. */
  getDLQMessage(letterId: string): Promise<DlqMessage | undefined> {
    const problem = Checks.checkLetterId("getDLQMessage", letterId)
    return problem === undefined ? this.#run(Letters.get(letterId)) : Promise.reject(problem)
  }

  /**
   * Sends one dead letter back to the group that gave it up, as attempt 1, with another payload if one is given. Resolves to whether this call
   * did it.
   */
  requeueDLQMessage(letterId: string, edit?: { readonly payload: Payload }): Promise<boolean> {
    const problem = Checks.checkLetterId("requeueDLQMessage", letterId)
    if (problem !== undefined) return Promise.reject(problem)
    return this.#run(Effect.gen({ self: this }, function*() {
      if (edit === undefined) return yield* DeadLetters.requeue(letterId)
      const letter = yield* Letters.get(letterId)
      if (letter === undefined) return false
      const { channel, value } = yield* this.#prepare([], letter.channel, edit.payload, undefined)
      return yield* DeadLetters.requeue(letterId, { channel, payload: value })
    }))
  }

  /** Deletes one dead letter. Resolves to whether this call did it. It does not go through the archive. */
  removeDLQMessage(letterId: string): Promise<boolean> {
    const problem = Checks.checkLetterId("removeDLQMessage", letterId)
    return problem === undefined ? this.#run(DeadLetters.remove(letterId)) : Promise.reject(problem)
  }

  /** Lists dead letters, the newest first unless `order` says otherwise. */
  getDLQMessages(query: DlqQuery = {}): Promise<Array<DlqMessage>> {
    return this.#run(Letters.list(query))
  }

  /**
   * Deletes dead letters beyond the limits of `dlqCleanup` now, through the archive if there is one. Returns their number. It does so also with
   * `dlqCleanup.enabled: false`, which only turns off the automatic cleanup.
   */
  cleanupDLQ(): Promise<number> {
    return this.#run(DeadLetters.applyRetention)
  }

  /** Deletes all dead letters, and returns their number. They do not go through the archive. */
  clearDLQ(): Promise<number> {
    return this.#run(DeadLetters.purge({}))
  }

  // Health and end ---------------------------------------------------------------------------------------------------

  /** Checks whether the backend answers, and counts subscriptions and dead letters. It never rejects. */
  getHealthStatus(): Promise<HealthStatus> {
    const running = () => this.getSubscriptions()
    return this.#run(Health.check(running)).catch((error: unknown) => Health.unhealthy(running(), error))
  }

  /** Checks the integrity of the namespace's data, and changes nothing; see `docs/verify.md`. */
  verify(options?: InspectOptions): Promise<VerifyReport> {
    return this.#run(Effect.map(Inspector.verify(options), (report) => ({ ...report, looked: { ...report.looked } })))
  }

  /** Repairs what can be repaired without losing a message; see `docs/verify.md`. It may be called while everything runs. */
  repair(options?: InspectOptions): Promise<RepairReport> {
    return this.#run(Inspector.repair(options))
  }

  /**
   * Stops the manager: takes no more messages, waits for running handlers (at most `drainTimeout`), gives the rest back, waits for calls in
   * progress (at most 10 seconds), closes all connections. It may be called again, and from anywhere: it stops once. Later calls reject with
   * `ManagerStopped`, but running handlers can publish until they end.
   *
   * Inside of a handler or hook it resolves when everything else has ended; the connections are closed after that handler has ended and its
   * message is acknowledged.
   */
  stopAll(): Promise<void> {
    return toPromise(this.#end.ask)
  }

  /** The same as `stopAll`. */
  destroy(): Promise<void> {
    return this.stopAll()
  }

  /** Stops the manager at the end of the block of `await using manager = …`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.stopAll()
  }
}

/**
 * The methods of a `NotificationManager`, without its class: for code that takes a manager or a fake of it.
 *
 * **Example** (A fake for a test)
 *
 * ```ts
 * import type { Notifications } from "rotif/promise"
 *
 * const placeOrder = async (notifications: Pick<Notifications, "publish">, id: string) => {
 *   await notifications.publish("orders.placed", { id })
 * }
 *
 * const published: Array<unknown> = []
 * await placeOrder({ publish: async (_channel: string, payload: unknown) => String(published.push(payload)) }, "o-1")
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Notifications<Channels extends object = AnyChannels>
  extends Pick<NotificationManager<Channels>, keyof NotificationManager<Channels>>
{}
