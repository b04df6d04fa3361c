/**
 * Dead letters: messages that a group gave up on. List, requeue, remove or subscribe to them.
 *
 * A dead letter belongs to the group that failed. The other groups of the channel handled the message, or have dead letters of their own.
 * Requeueing sends a message back to the group that failed, and to no other.
 *
 * @since 0.1.0
 */
import type { Duration, Option, Scope } from "effect"
import { Context, Effect, Layer, Queue, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type { DeadLetter, Filter, InvalidDeadLetterOption, Offered, OfferedOf } from "./DeadLetter.ts"
import type * as Publisher from "./Publisher.ts"
import * as Retry from "./Retry.ts"
import type { LetterCount } from "./broker/deadLetters.ts"
import type { WrongChannel } from "./deadLetters/moving.ts"
import * as Moving from "./deadLetters/moving.ts"
import type {
  Edit,
  Page,
  PageOptions,
  Progress,
  RequeueAllOptions,
  Retention,
  StreamOptions,
  SubscribeOptions
} from "./deadLetters/options.ts"
import { read } from "./deadLetters/options.ts"
import * as Reading from "./deadLetters/reading.ts"
import * as Retaining from "./deadLetters/retention.ts"
import * as LetterSubscription from "./deadLetters/subscription.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import { tellEnd } from "./internal/reports.ts"
import * as Envelope from "./publisher/envelope.ts"

export { WrongChannel } from "./deadLetters/moving.ts"
export type {
  Edit,
  Page,
  PageOptions,
  Progress,
  RequeueAllOptions,
  Retention,
  StreamOptions,
  SubscribeOptions
} from "./deadLetters/options.ts"

/**
 * Options of `make` and `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Pick<Publisher.Options, "maxPayloadBytes"> {
  /** How long dead letters are kept, and the archive. */
  readonly deadLetters?: Retention | undefined
  /** The end of a subscription to dead letters waits for its running handlers for at most this long. Default 30 seconds. */
  readonly drainTimeout?: Duration.Input | undefined
}

type QueryError = InvalidDeadLetterOption | BrokerError

/**
 * The service for the dead letters of all channels and groups. Its members are described at the functions of the same names.
 *
 * @category services
 * @since 0.1.0
 */
export class DeadLetters extends Context.Service<DeadLetters, {
  readonly list: (filter?: Filter, options?: PageOptions) => Effect.Effect<Page, QueryError>
  readonly all: (filter?: Filter, options?: Pick<PageOptions, "order">) => Stream.Stream<DeadLetter, QueryError>
  readonly get: (letterId: string) => Effect.Effect<Option.Option<DeadLetter>, QueryError>
  readonly count: (filter?: Filter) => Effect.Effect<number, QueryError>
  readonly countBy: (filter?: Pick<Filter, "channel" | "group" | "reason">) => Effect.Effect<
    ReadonlyArray<LetterCount>,
    QueryError
  >
  readonly requeue: <C extends Channel.Any = never>(letterId: string, edit?: Edit<C>) => Effect.Effect<
    boolean,
    QueryError | WrongChannel | Channel.InvalidPayload | Publisher.PayloadTooLarge,
    Channel.EncodingServices<C>
  >
  readonly requeueAll: (filter: Filter, options: RequeueAllOptions) => Effect.Effect<Progress, QueryError>
  readonly remove: (letterId: string) => Effect.Effect<boolean, QueryError>
  readonly purge: (filter: Filter) => Effect.Effect<number, QueryError>
  readonly applyRetention: Effect.Effect<number, BrokerError>
  readonly subscribe: <E, R>(
    source: Channel.Source | undefined,
    options: SubscribeOptions<never, E, R>
  ) => Effect.Effect<void, InvalidDeadLetterOption, R | Scope.Scope>
  /**
   * The ends of the subscriptions that have not ended yet.
   *
   * @internal
   */
  readonly endings: ReadonlySet<Ending.Ending>
  readonly forgetSubscription: (name: string) => Effect.Effect<void, QueryError>
}>()("rotif/DeadLetters") {}

/** @internal */
export const retentionOf = Retaining.optionsOf

/**
 * Makes the service on the broker in the context, without the retention. Use `layer` unless you wire services yourself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const broker = yield* Broker
  const store = broker.letters
  const retention = yield* Retaining.optionsOf(options?.deadLetters)
  const largest = yield* Given.orDie(Envelope.limitOf("maxPayloadBytes", options?.maxPayloadBytes))
  const drainMillis = yield* Given.orDie(Given.span("drainTimeout", options?.drainTimeout, Limits.drainTimeout))
  const endings = yield* Ending.registry
  const policies = yield* Retry.Retry
  const shards = Array.from({ length: broker.shards }, (_, shard) => shard)

  const service = DeadLetters.of({
    ...Reading.make(broker),
    ...Moving.make(broker, largest),
    applyRetention: Retaining.pass(store, broker.shards, retention, Effect.succeed(true)),
    subscribe: (source, options) =>
      Effect.map(LetterSubscription.start(broker, source, options, { drainMillis, policies }), endings.keep),
    endings: endings.all,
    forgetSubscription: (name) =>
      Effect.flatMap(
        read(Given.name("name", name)),
        (name) => Effect.forEach(shards, (shard) => store.forget(shard, name), { concurrency: 8, discard: true })
      )
  })
  return Calls.guard(yield* Calls.ofLayer("dead letters"), service, ["all", "subscribe", "endings"])
})

/**
 * Provides the dead letters of a broker, and applies their retention at every `interval`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<DeadLetters, never, Broker> =>
  Layer.effect(
    DeadLetters,
    Effect.gen(function*() {
      const broker = yield* Broker
      const retention = yield* Retaining.optionsOf(options?.deadLetters)
      if (options?.deadLetters?.enabled !== false) {
        yield* Effect.forkScoped(Retaining.run(broker, retention))
      }
      return yield* make(options)
    })
  )

/**
 * Lists dead letters in pages, over all shards in the order of their death.
 *
 * **Details**: a letter that exists during the whole walk is on exactly one page, whatever is added or removed meanwhile. A filter by channel
 * name reads one shard only; other filters also read the letters that they leave out.
 *
 * **Errors**: `InvalidDeadLetterOption` if the filter, limit or cursor cannot be used; `BrokerError`. Calling again is safe.
 *
 * **Example** (Walking through what billing gave up)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { DeadLetters } from "rotif"
 *
 * const program = Effect.gen(function*() {
 *   const first = yield* DeadLetters.list({ group: "billing", channel: "orders.*" }, { limit: 20 })
 *   for (const letter of first.letters) yield* Effect.log(letter.letterId, letter.failure.message)
 *   return first.cursor === undefined ? undefined : yield* DeadLetters.list({ group: "billing" }, { cursor: first.cursor })
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const list = (filter?: Filter, options?: PageOptions): Effect.Effect<Page, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.list(filter, options))

/**
 * Streams all dead letters that match, read page by page.
 *
 * **Errors**: those of `list`.
 *
 * @category operations
 * @since 0.1.0
 */
export const all = (
  filter?: Filter,
  options?: Pick<PageOptions, "order">
): Stream.Stream<DeadLetter, QueryError, DeadLetters> =>
  Stream.unwrap(DeadLetters.useSync((service) => service.all(filter, options)))

/**
 * Gets one dead letter with its whole failure; `None` if there is no such letter.
 *
 * **Errors**: `InvalidDeadLetterOption` if the id cannot be one; `BrokerError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = (letterId: string): Effect.Effect<Option.Option<DeadLetter>, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.get(letterId))

/**
 * Counts dead letters. A filter by channel, group and reason reads counters; one by error tag or time reads the letters.
 *
 * **Errors**: `InvalidDeadLetterOption` if the filter cannot be used; `BrokerError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const count = (filter?: Filter): Effect.Effect<number, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.count(filter))

/**
 * Counts dead letters by group, channel and reason, the largest count first. A letter that cannot be read is in no count.
 *
 * **Errors**: `InvalidDeadLetterOption` if the filter cannot be used; `BrokerError`.
 *
 * @category operations
 * @since 0.1.0
 */
export const countBy = (
  filter?: Pick<Filter, "channel" | "group" | "reason">
): Effect.Effect<ReadonlyArray<LetterCount>, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.countBy(filter))

/**
 * Sends the message of a dead letter back to the group that failed, and to that group only. It keeps its id, headers and time of first
 * publish, begins with attempt 1, and has its failures as history. Returns whether this call moved it: `false` if the letter is gone or cannot
 * be read.
 *
 * **Details**: moving is one step in the backend; of concurrent calls one moves it. With `edit` the message has another payload, which the
 * schema of its channel has checked.
 *
 * **Errors**: `InvalidDeadLetterOption` if the id cannot be one, `InvalidPayload`, `PayloadTooLarge`, `WrongChannel`: nothing was moved.
 * `BrokerError` with reason `Uncertain`: it may have been moved; calling again is safe and moves it at most once.
 *
 * **Example** (Repairing a payload)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Channel, DeadLetters } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, total: Schema.Finite }) })
 * const repair = (letterId: string) => DeadLetters.requeue(letterId, { channel: Orders, payload: { id: "o-1", total: 42 } })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const requeue = <C extends Channel.Any = never>(letterId: string, edit?: Edit<C>): Effect.Effect<
  boolean,
  QueryError | WrongChannel | Channel.InvalidPayload | Publisher.PayloadTooLarge,
  DeadLetters | Channel.EncodingServices<C>
> => DeadLetters.use((service) => service.requeue(letterId, edit))

/**
 * Requeues the letters that match and exist when it begins, the oldest first, at most `limit`.
 *
 * **Details**: a message that dies again meanwhile is not requeued twice. `dryRun` only counts. `onProgress` runs after each batch of at most
 * 100 letters. An interruption between batches loses nothing.
 *
 * **Errors**: `InvalidDeadLetterOption`: nothing was moved. `BrokerError`: some may have been moved; calling again continues with the rest.
 *
 * **Example** (After the fix, gently)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { DeadLetters } from "rotif"
 *
 * const retryAll = DeadLetters.requeueAll({ group: "billing", errorTag: "GatewayDown" }, {
 *   limit: 10_000,
 *   rate: 50,
 *   onProgress: ({ moved }) => Effect.log(`${moved} requeued`)
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const requeueAll = (
  filter: Filter,
  options: RequeueAllOptions
): Effect.Effect<Progress, QueryError, DeadLetters> => DeadLetters.use((service) => service.requeueAll(filter, options))

/**
 * Deletes one dead letter. Returns whether this call deleted it.
 *
 * **Errors**: `InvalidDeadLetterOption` if the id cannot be one; `BrokerError`. Calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const remove = (letterId: string): Effect.Effect<boolean, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.remove(letterId))

/**
 * Deletes the letters that match and exist when it begins, and returns their number. `{}` deletes all. They do not go through the archive.
 *
 * **Errors**: `InvalidDeadLetterOption` if the filter cannot be used: nothing was deleted. `BrokerError`: some may have been deleted; calling
 * again continues with the rest.
 *
 * @category operations
 * @since 0.1.0
 */
export const purge = (filter: Filter): Effect.Effect<number, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.purge(filter))

/**
 * Applies the retention now, and returns how many letters it deleted: those that are too old, and the oldest of those that are too many. They
 * go through the archive. One of the processes does this at every `interval`.
 *
 * **Errors**: `BrokerError`: some may have been deleted; calling again continues with the rest.
 *
 * @category operations
 * @since 0.1.0
 */
export const applyRetention: Effect.Effect<number, BrokerError, DeadLetters> = DeadLetters.use((service) =>
  service.applyRetention
)

/**
 * Subscribes to dead letters as they arrive, in the current scope.
 *
 * **Details**: each name gets every letter that matches at least once; the processes with this name share them. `letter.ack` deletes the
 * letter. If the handler succeeds without settling the letter, it is kept, and is not offered again under this name. If the handler fails,
 * the letter is offered again after a delay. If the process is lost, the letter is offered to another one after the lease. The end of the
 * scope waits for running handlers for at most `drainTimeout`; then it interrupts them, and their letters are offered again at once. With a
 * source the payload is decoded by its schema.
 *
 * **Errors**: `InvalidDeadLetterOption`: nothing was started. While it runs, it logs failures of the backend and continues.
 *
 * **Example** (Telling somebody)
 *
 * ```ts
 * import { Effect, Result, Schema } from "effect"
 * import { Channel, DeadLetters } from "rotif"
 *
 * const Orders = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })
 *
 * const alerts = DeadLetters.subscribe(Orders, {
 *   name: "alerts",
 *   handler: (letter) =>
 *     Effect.logError(
 *       `${letter.group} gave up on ${Result.isSuccess(letter.payload) ? letter.payload.success.id : letter.raw}: ` +
 *         letter.failure.message
 *     )
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const subscribe: {
  <S extends Channel.Source, E, R>(
    source: S,
    options: SubscribeOptions<OfferedOf<S>, E, R>
  ): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Channel.DecodingServices<S> | Scope.Scope>
  <E, R>(
    options: SubscribeOptions<Offered, E, R>
  ): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Scope.Scope>
} = <E, R>(...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>) => subscribeTo(...args)

/** Arguments with a source or without one. The overloads give the letters of each their type. */
type Arguments<Untyped, Typed> = [options: Untyped] | [source: Channel.Source, options: Typed]

const subscribeTo = <E, R>(
  ...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>
): Effect.Effect<void, InvalidDeadLetterOption, DeadLetters | R | Scope.Scope> =>
  DeadLetters.use((service) =>
    args.length === 1 ? service.subscribe(undefined, args[0]) : service.subscribe(args[0], args[1])
  )

/**
 * Runs a subscription to dead letters for as long as the layer. It is `subscribe` as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSubscription: {
  <S extends Channel.Source, E, R>(
    source: S,
    options: SubscribeOptions<OfferedOf<S>, E, R>
  ): Layer.Layer<
    never,
    InvalidDeadLetterOption,
    Exclude<DeadLetters | R | Channel.DecodingServices<S>, Scope.Scope>
  >
  <E, R>(
    options: SubscribeOptions<Offered, E, R>
  ): Layer.Layer<never, InvalidDeadLetterOption, Exclude<DeadLetters | R, Scope.Scope>>
} = <E, R>(
  ...args: Arguments<SubscribeOptions<Offered, E, R>, SubscribeOptions<never, E, R>>
): Layer.Layer<never, InvalidDeadLetterOption, Exclude<DeadLetters | R | Scope.Scope, Scope.Scope>> =>
  Layer.effectDiscard(subscribeTo(...args))

/**
 * Streams dead letters as they arrive. The consumer settles each one: `ack`, `keep`, `nack` or `requeue`. The lease of an unsettled letter is
 * renewed; it counts against `concurrency`, and is offered again when the stream ends.
 *
 * **Errors**: `InvalidDeadLetterOption`: nothing was started.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stream: {
  <S extends Channel.Source>(
    source: S,
    options?: StreamOptions
  ): Stream.Stream<OfferedOf<S>, InvalidDeadLetterOption, DeadLetters | Channel.DecodingServices<S>>
  (options?: StreamOptions): Stream.Stream<Offered, InvalidDeadLetterOption, DeadLetters>
} = (
  first?: StreamOptions | Channel.Source,
  second?: StreamOptions
): Stream.Stream<never, InvalidDeadLetterOption, DeadLetters> =>
  Stream.unwrap(Effect.gen(function*() {
    const [source, options] = Channel.isSource(first) ? [first, second] : [undefined, first]
    const service = yield* DeadLetters
    // The letters in the queue are leased to this process; `concurrency` bounds their number.
    const queue = yield* Queue.unbounded<never>()
    yield* service.subscribe(source, {
      ...options,
      // The consumer of the letters has ended with the stream.
      drainTimeout: 0,
      handler: (letter: Offered) => Effect.andThen(Queue.offer(queue, letter as never), letter.settled)
    })
    yield* Effect.addFinalizer((exit) => tellEnd(`a stream of dead letters (${options?.name ?? "dead-letters"})`, exit))
    return Stream.fromQueue(queue)
  }))

/**
 * Deletes the record of a subscription to dead letters: which letters it has seen. The letters stay; a subscription with this name begins anew.
 *
 * **Errors**: `InvalidDeadLetterOption` if the name cannot be one; `BrokerError`. Calling again is safe.
 *
 * @category operations
 * @since 0.1.0
 */
export const forgetSubscription = (name: string): Effect.Effect<void, QueryError, DeadLetters> =>
  DeadLetters.use((service) => service.forgetSubscription(name))
