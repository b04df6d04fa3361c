/**
 * Subscriptions: a subscription is one consumer of a group, and handles the messages of channels as long as its scope is open.
 *
 * Start one with `make`, `layer` or `stream`. Its rooms are in `subscription/`: the options and their checks (`options`, `settings`), the handle
 * (`handle`), the handling of one message (`handling`), and the consumer (`consumer`), which reads (`intake`) and starts handlers (`dispatch`).
 *
 * @since 0.1.0
 */
import type { Context, Option } from "effect"
import { Cause, Effect, Exit, Layer, Queue, Scope, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker, GroupRemoved } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import * as Message from "./Message.ts"
import type * as Middleware from "./Middleware.ts"
import * as Retry from "./Retry.ts"
import * as Promoter from "./duties/promoter.ts"
import * as Activity from "./internal/activity.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Reporting from "./internal/reports.ts"
import * as Unnamed from "./internal/unnamedGroups.ts"
import * as Chain from "./middleware/composition.ts"
import * as BatchHandling from "./subscription/batchHandling.ts"
import type { BatchOptions } from "./subscription/batchOptions.ts"
import * as BatchSettings from "./subscription/batchOptions.ts"
import * as Consumer from "./subscription/consumer.ts"
import type { Subscription } from "./subscription/handle.ts"
import * as Handle from "./subscription/handle.ts"
import * as Handling from "./subscription/handling.ts"
import type { HandlerServices, InvalidSubscription, Options, StreamOptions } from "./subscription/options.ts"
import type { Received } from "./subscription/received.ts"
import { Subscriptions } from "./subscription/registry.ts"
import * as Settings from "./subscription/settings.ts"

export type { Stats, Subscription } from "./subscription/handle.ts"
export type { BatchOptions } from "./subscription/batchOptions.ts"
export type {
  AttemptOptions,
  Defaults,
  ExactlyOnce,
  HandlerServices,
  Options,
  Report,
  Reports,
  StartFrom,
  StreamOptions
} from "./subscription/options.ts"
export { InvalidOnceKey, InvalidSubscription } from "./subscription/options.ts"
export { layerRegistry, running, Subscriptions } from "./subscription/registry.ts"
/** @internal */
export { checkDefaults, defaultNames } from "./subscription/settings.ts"

/** At most this many failed streams are remembered. */
const mostFailures = 100

const failureKey = (group: string, pattern: string) => `${group}\n${pattern}`

/** The handling of messages by a consumer, and the verdict on an attempt that failed. */
type Handler<S extends Channel.Source, R> =
  & Pick<Consumer.Options<R>, "handling" | "keyOf">
  & Pick<Received<S, never>, "failed">

/** Starts a consumer in the current scope, and returns the handle of its subscription. `givenGroup`: the group of the options. */
const run = Effect.fnUntraced(function*<S extends Channel.Source, R>(
  settings: Pick<Settings.Settings<never, Message.Message<S>>, "consumer" | "membership" | "pattern" | "reports">,
  { failed, ...handling }: Handler<S, R>,
  givenGroup: string | undefined
): Effect.fn.Return<Subscription, InvalidSubscription | BrokerError, R | Broker | Subscriptions | Scope.Scope> {
  const broker = yield* Broker
  const { budgets, endings, failures, middleware: program, retries, running, unnamed, watched } = yield* Subscriptions
  const { membership, pattern } = settings
  const { group, selector } = membership

  // The end of the scope is the end of the subscription. A subscription that has ended before leaves nothing in the scope.
  const guard = yield* Scope.fork(yield* Effect.scope)
  const end = Handle.makeEnd(broker, membership, guard)
  if (retries !== undefined) {
    yield* Scope.provide(Promoter.keepRetries(broker, broker.shardsOf(selector), retries), guard)
  }
  if (givenGroup === undefined) yield* Scope.provide(Unnamed.enter(unnamed, group, pattern), guard)
  const reporter = yield* Scope.provide(Reporting.make(budgets, group, settings.reports), guard)
  const consumer: Consumer.Consumer = yield* Consumer.make({
    ...settings.consumer,
    ...handling,
    broker,
    membership,
    reporter,
    onEnd: () => running.delete(subscription),
    afterEnd: end.after
  }).pipe(
    (consumer) =>
      program.process.length === 0
        ? consumer
        : Effect.updateContext(
          consumer,
          (context: Context.Context<R | Scope.Scope>) => Chain.complete(program, context)
        ),
    Activity.outside,
    Effect.onError(() => Scope.close(guard, Exit.void)),
    Effect.catchTag("OrderingConflict", ({ message }) => Effect.fail(Settings.invalid("ordering", message)))
  )

  const subscription: Subscription = Handle.make(consumer, settings, end)
  watched.set(subscription, {
    selector,
    vitals: consumer.vitals,
    // `Watched` holds subscriptions of all channels; this one is only told of its own messages.
    failed: (message, delivery, cause) => failed(message as unknown as Message.Message<S>, delivery, consumer, cause)
  })
  running.add(subscription)
  failures.delete(failureKey(group, pattern))
  endings.keep(consumer.ending)
  yield* Scope.addFinalizer(guard, Effect.suspend(() => end.isOver() ? Effect.void : consumer.ending.ask))
  return subscription
})

/**
 * Starts a subscription in the current scope and returns its handle.
 *
 * **Details**: when this succeeds, the subscription has joined its group: every message published from then on reaches the group.
 * Closing the scope drains it. Each message is handled at least once: if the process is lost, its leases expire and other consumers take the
 * messages over. A message that was handled and not yet acknowledged is then handled again.
 *
 * **Errors**: `InvalidSubscription` for an option that cannot be used; `BrokerError` if the group could not be joined. Nothing runs then, and
 * calling again is safe. A running subscription logs failures of the backend and continues; only its end stops it.
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
  const broker = yield* Broker
  const { defaults, middleware: program, retry } = yield* Subscriptions
  const settings = yield* Settings.make<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>(
    source,
    options,
    defaults,
    Retry.within(yield* Retry.Retry, retry)
  )
  return yield* run(settings, Handling.make({ broker, options, program, settings, source }), options.group)
})

/**
 * Makes a layer that runs a subscription as long as it exists. `Layer.launch` runs it as a program.
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

/**
 * Starts a subscription whose handler gets messages in batches, in the current scope, and returns its handle.
 *
 * **Details**: a batch begins when it has `size` messages, or `within` after its first one came. The guarantees are those of `make`, for each
 * message: leases are renewed while a batch is collected and handled, and a message whose payload does not decode, that has expired, or that is
 * a duplicate (`exactlyOnce`) never reaches the handler. When the handler fails, its messages come again in batches of half the size, and so on
 * down to one. No message becomes a dead letter by a failure that it shares with others, so that a bad one ends as the only dead letter. The
 * end of the subscription gives a batch that is being collected back at once. See `docs/batches.md`.
 *
 * **Errors**: those of `make`.
 *
 * **Example** (Storing many rows at once)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Batch, Channel, Subscription } from "rotif"
 *
 * const Rows = Channel.make("rows", { payload: Schema.Struct({ id: Schema.String, amount: Schema.Finite }) })
 *
 * const warehouse = Subscription.batch(Rows, {
 *   group: "warehouse",
 *   size: 500,
 *   within: "200 millis",
 *   handler: (messages) =>
 *     Effect.gen(function*() {
 *       const bad = messages.filter(({ payload }) => payload.amount < 0)
 *       yield* Effect.log(`storing ${messages.length - bad.length} rows`)
 *       return new Map(bad.map((message) => [message, Batch.term("a negative amount")]))
 *     })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const batch = Effect.fnUntraced(function*<
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false,
  F = never
>(
  source: S,
  options: BatchOptions<S, E, R, Ms, Transactional, F>
): Effect.fn.Return<
  Subscription,
  InvalidSubscription | BrokerError,
  | HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional>
  | Channel.DecodingServices<S>
  | Broker
  | Subscriptions
  | Scope.Scope
> {
  const broker = yield* Broker
  const { defaults, middleware: program, retry } = yield* Subscriptions
  const settings = yield* BatchSettings.make<E | F | Middleware.ProcessErrors<Ms>, Message.Message<S>>(
    source,
    options,
    defaults,
    Retry.within(yield* Retry.Retry, retry)
  )
  // For the handling all errors are alike.
  const all = options as unknown as BatchOptions<S, E | F, R, Ms, Transactional>
  return yield* run(settings, BatchHandling.make({ broker, options: all, program, settings, source }), options.group)
})

/**
 * Makes a layer that runs a subscription in batches as long as it exists.
 *
 * @category layers
 * @since 0.1.0
 */
export const batchLayer = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess> = readonly [],
  Transactional extends boolean = false,
  F = never
>(
  source: S,
  options: BatchOptions<S, E, R, Ms, Transactional, F>
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
> => Layer.effectDiscard(batch(source, options))

/** At most this many messages of a stream are unsettled, beside `concurrency`: enough to fill batches of some hundreds. */
const streamPrefetch = 500

/**
 * Options of `stream`.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessageStreamOptions<S extends Channel.Source, E = unknown>
  extends StreamOptions, Pick<Options<S, never, never>, "exactlyOnce" | "maxRetries" | "retryDelay">
{
  /** The number of messages that may be unsettled beside `concurrency`. Default 500. */
  readonly prefetch?: number | undefined
  /** The policy for `message.fail(error)`, as `retry` of a subscription. Default: the default policy. */
  readonly retry?: Retry.PolicyOrName<E, Message.Message<S>> | undefined
  /**
   * The outcome of a settlement whose lease was lost. By default it succeeds and a line is logged: another consumer of the group has the
   * message, or will have it. `"fail"`: it fails with `LeaseLost`.
   */
  readonly leaseLost?: "ignore" | "fail" | undefined
}

/**
 * Makes a stream of messages that its user settles: each one by `ack`, `fail`, `nack`, `term` or `release`. A message that is not settled is
 * held and renewed, counts against `concurrency` and `prefetch`, and is given back when the stream ends.
 *
 * **Details**: by default at most 500 messages are unsettled, so that a batch (`Stream.groupedWithin`) is filled before it is settled. A lost
 * lease does not fail the stream unless `leaseLost` is `"fail"`. After `message.fail(error)` the attempt has failed, and `retry`, `maxRetries`
 * and `retryDelay` decide about the message.
 *
 * **Errors**: those of `make`; `GroupRemoved` if the group is removed.
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
    const leaseLost = yield* Settings.option(Given.choice("leaseLost", given, ["ignore", "fail"]))
    // The consumer holds the messages in the queue, and its capacity bounds them.
    const queue = yield* Queue.unbounded<Message.StreamMessage<S, never, E>, Cause.Done | GroupRemoved>()
    let lostLeases = 0
    const side: Message.StreamSide = {
      verdict: (message, delivery, error) =>
        Effect.suspend(() => watched.get(subscription)!.failed(message, delivery, Cause.fail(error))),
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
      // The policy decides about the errors that `fail` is given; the handler itself never fails.
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
      // The removal of its group is in the log already.
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
