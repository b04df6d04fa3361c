/**
 * Handling messages: a subscription is a consumer of a group, and runs as long as its scope.
 *
 * @since 0.1.0
 */
import type { Fiber, Option } from "effect"
import { Cause, Context, Effect, Exit, Layer, Queue, Scope, Stream } from "effect"
import type { BrokerError, Delivery, Selector } from "./Broker.ts"
import { Broker, GroupRemoved } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import * as Message from "./Message.ts"
import * as Middleware from "./Middleware.ts"
import * as Retry from "./Retry.ts"
import * as Promoter from "./duties/promoter.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Reporting from "./internal/reports.ts"
import type { Settlement } from "./internal/settlement.ts"
import * as Unnamed from "./internal/unnamedGroups.ts"
import * as Chain from "./middleware/composition.ts"
import * as Consumer from "./subscription/consumer.ts"
import type { Processing } from "./subscription/handlerTimes.ts"
import * as Handling from "./subscription/handling.ts"
import type { Counts } from "./subscription/heldDelivery.ts"
import type { HandlerServices, InvalidSubscription, Options, StreamOptions } from "./subscription/options.ts"
import * as Settings from "./subscription/settings.ts"

export type {
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
/** @internal */
export { checkDefaults } from "./subscription/settings.ts"

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
  /**
   * The fiber of the subscription: it runs as long as the subscription, and completes as `ended` does. Interrupting it drains the subscription:
   * `Fiber.interrupt` waits for that as `drain` does, also from inside of a handler.
   */
  readonly fiber: Fiber.Fiber<void, GroupRemoved>
}

/** What a subscription reads, and how it is. */
interface Watched {
  readonly selector: Selector
  readonly vitals: () => Consumer.Vitals
  /** What becomes of an attempt that failed, by the policy of the subscription. */
  readonly failed: (
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
  readonly defaults: Settings.ProgramDefaults
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

/**
 * The registry of running subscriptions as a layer. With it the subscriptions end that are left.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRegistry = (
  defaults: Settings.ProgramDefaults & { readonly delayed?: boolean | undefined } = {}
): Layer.Layer<Subscriptions> =>
  Layer.effect(
    Subscriptions,
    Effect.gen(function*() {
      yield* Settings.checkDefaults(defaults)
      const endings = yield* Ending.registry
      return {
        defaults: Settings.defaultsOf(defaults),
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

const unsubscribeNames: ReadonlySet<string> = new Set(["removeGroup"])

/** What says something else than whether the group is to go would be taken for "no" in silence. */
const removeGroupOf = (options: { readonly removeGroup?: boolean | undefined } | undefined): Effect.Effect<boolean> =>
  Effect.flatMap(
    Given.orDie(Given.known("the options of unsubscribe", options, unsubscribeNames)),
    (options) => Given.orDie(Given.flag("removeGroup", options?.removeGroup, false))
  )

/** So many streams that have failed are remembered. */
const mostFailures = 100
const failureKey = (group: string, pattern: string) => `${group}\n${pattern}`

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
  type Needs = HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional> | Channel.DecodingServices<S>
  const broker = yield* Broker
  const { budgets, defaults, endings, failures, middleware: program, retries, retry, running, unnamed, watched } =
    yield* Subscriptions
  const settings = yield* Settings.make<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>(
    source,
    options,
    defaults,
    Retry.within(yield* Retry.Retry, retry)
  )
  const { membership, pattern } = settings
  const { group, selector } = membership
  const { failed, ...handling } = Handling.make({ broker, options, program, settings, source })

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
  const reporter = yield* Scope.provide(Reporting.make(budgets, group, settings.reports), guard)
  const consumer: Consumer.Consumer = yield* Consumer.make({
    ...settings.consumer,
    ...handling,
    broker,
    membership,
    reporter,
    onEnd: () => running.delete(subscription),
    afterEnd
  }).pipe(
    (consumer) =>
      program.process.length === 0
        ? consumer
        : Effect.updateContext(consumer, (context: Context.Context<Needs | Scope.Scope>) =>
          Chain.complete(program, context)),
    Effect.onError(() => Scope.close(guard, Exit.void))
  )

  const ended = Effect.andThen(
    consumer.ending.over,
    Effect.suspend(() => {
      const removed = consumer.removed()
      return removed === undefined ? Effect.void : Effect.fail(removed)
    })
  )
  const subscription: Subscription = {
    pattern,
    group,
    consumer: membership.consumer,
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
    ended,
    fiber: Ending.fiberOf(consumer.ending, ended)
  }
  watched.set(subscription, {
    selector,
    vitals: consumer.vitals,
    failed: (message, delivery, cause) => failed(message as unknown as Message.Message<S>, delivery, consumer, cause)
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
    const leaseLost = yield* Settings.option(Given.choice("leaseLost", given, ["ignore", "fail"]))
    // What is in the queue is held by the consumer, whose capacity bounds it.
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
