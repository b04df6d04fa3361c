/**
 * Publishing messages.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Clock, Context, Effect, Layer, Result } from "effect"
import type { NewMessage } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import * as Calls from "./internal/runningCalls.ts"
import { durabilityOf } from "./internal/durabilityOption.ts"
import { isDone } from "./internal/immediate.ts"
import { usualMaxMillis } from "./broker/idWindow.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Limits from "./internal/optionLimits.ts"
import * as Shape from "./internal/optionShape.ts"
import { uniqueName } from "./internal/uniqueName.ts"
import * as Chain from "./middleware/composition.ts"
import type { PublishErrors, PublishServices } from "./middleware/definition.ts"
import { Program } from "./middleware/definition.ts"
import * as PublishChain from "./middleware/publishing.ts"
import * as Composing from "./publisher/composing.ts"
import * as Envelope from "./publisher/envelope.ts"
import type { AnyOptions, Durability, OptionsFor } from "./publisher/options.ts"
import type { Receipt, RequestError, StoreError } from "./publisher/outcome.ts"
import { InvalidPublishOptions, outcomeOf, PublishIncomplete, PublishRefused } from "./publisher/outcome.ts"

export type { AnyOptions, Durability, OptionsFor, PublishOptions } from "./publisher/options.ts"
export type { RequestError, StoreError } from "./publisher/outcome.ts"
export {
  DurabilityNotReached,
  InvalidPublishOptions,
  PayloadTooLarge,
  PublishIncomplete,
  PublishRefused,
  PublishUncertain,
  Receipt,
  Unavailable
} from "./publisher/outcome.ts"

type Published<C extends Channel.Any, Self> = Effect.Effect<
  Receipt,
  RequestError | StoreError | PublishErrors<C>,
  Self | Channel.EncodingServices<C> | PublishServices<C>
>

type PublishedAll<C extends Channel.Any, Self> = Effect.Effect<
  ReadonlyArray<Receipt>,
  RequestError | PublishIncomplete | PublishErrors<C>,
  Self | Channel.EncodingServices<C> | PublishServices<C>
>

/**
 * The signature of `publish`. `Self` is the service that the call needs; `never` for a member of the service.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishOne<Self> = <C extends Channel.Any>(
  channel: C,
  payload: Channel.PayloadOf<C>,
  ...options: Channel.OptionsArgument<C, OptionsFor<C>>
) => Published<C, Self>

/**
 * The signature of `publishAll`; `Self` as in `PublishOne`.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishMany<Self> = <C extends Channel.Any>(
  channel: C,
  payloads: Iterable<Channel.PayloadOf<C>>,
  ...options: Channel.OptionsArgument<
    C,
    OptionsFor<C> | ((payload: Channel.PayloadOf<C>, index: number) => OptionsFor<C>)
  >
) => PublishedAll<C, Self>

/**
 * Options of `make` and `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The largest payload with headers, in bytes of its encoded form. Default 1 MiB; more than 64 MiB counts as 64 MiB. */
  readonly maxPayloadBytes?: number | undefined
  /** The longest window of `deduplicate` and `throttle`, and the longest delay of `debounce`. Default 7 days. */
  readonly maxWindow?: Duration.Input | undefined
  /** The durability that a publish waits for, unless it has its own. Default: it waits for nothing more. */
  readonly durability?: Durability | undefined
}

/**
 * The service that publishes messages. Its members are described at the functions of the same names.
 *
 * @category services
 * @since 0.1.0
 */
export class Publisher extends Context.Service<Publisher, {
  readonly publish: PublishOne<never>
  readonly publishAll: PublishMany<never>
  /**
   * Passes a message through the middleware, checks and encodes it as `publish` does, and sends nothing: the caller stores it, at `dueAtMillis`
   * (default: now) at the earliest. Middleware sees a receipt `Scheduled`. Middleware that lets no message through leaves `messages` empty.
   */
  readonly prepare: <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    options: Channel.OptionsArgument<C, OptionsFor<C>>[0],
    dueAtMillis?: number
  ) => Effect.Effect<
    { readonly messages: ReadonlyArray<NewMessage>; readonly receipt: Receipt },
    RequestError | PublishErrors<C>,
    Channel.EncodingServices<C> | PublishServices<C>
  >
}>()("rotif/Publisher") {}

/**
 * Makes ids that are unique among processes (48 random bits each) and ascending within one: the first digit of the counter is the number of
 * its other digits.
 */
const makeIds = () => {
  const process = uniqueName()
  let counter = 0
  return () => {
    const digits = (counter++).toString(36)
    return `${process}${digits.length}${digits}`
  }
}

/** After at most this many payloads a `publishAll` lets other fibers run. */
const encodedPerTurn = 256

/** Succeeds with the receipts if there is one for each message. */
const allOrIncomplete = (
  channel: Channel.Any,
  outcomes: ReadonlyArray<Receipt | StoreError | RequestError>
): Effect.Effect<ReadonlyArray<Receipt>, PublishIncomplete> => {
  const receipts = outcomes.filter((outcome): outcome is Receipt => !(outcome instanceof Error))
  return receipts.length < outcomes.length
    ? Effect.fail(new PublishIncomplete({ channel: channel.name, outcomes }))
    : Effect.succeed(receipts)
}

/** @internal */
export const shape = Shape.shape<Options>()({
  maxPayloadBytes: Envelope.limitOf,
  maxWindow: Shape.span({ usual: usualMaxMillis, least: 1, most: Limits.longestKept }),
  durability: Shape.optional(durabilityOf)
})

/**
 * Makes the service on the broker in the context. Use `layer` unless you wire services yourself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const broker = yield* Broker
  const clock = yield* Clock.Clock
  const { durability: usualDurability, maxPayloadBytes: limit, maxWindow: mostMillis } = yield* Given.orDie(
    shape.read(options)
  )
  const nextId = makeIds()
  const program = yield* Program

  const compose = Composing.make({
    limit,
    mostMillis,
    usualDurability,
    nextId,
    now: () => clock.currentTimeMillisUnsafe()
  })

  /** Continues with the message of a payload; at once, if its schema encodes at once. Runs in a fiber. */
  const withMessage = <C extends Channel.Any, A, E>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    options: AnyOptions | undefined,
    id: string | undefined,
    use: (message: NewMessage) => Effect.Effect<A, E>
  ): Effect.Effect<A, E | RequestError, Channel.EncodingServices<C>> => {
    const go = (text: string): Effect.Effect<A, E | RequestError> => {
      const message = compose(channel, payload, text, options, id)
      return message instanceof Error ? Effect.fail(message) : use(message)
    }
    const text = Channel.encodeNow(channel, payload)
    return isDone(text) ? go(text.value) : Effect.flatMap(text, go)
  }

  const request = <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    options: AnyOptions | undefined,
    id?: string
  ): Effect.Effect<NewMessage, RequestError, Channel.EncodingServices<C>> =>
    Effect.suspend(() => withMessage(channel, payload, options, id, Effect.succeed))

  const send = (message: NewMessage): Effect.Effect<Receipt, StoreError> =>
    Effect.flatMap(broker.append([message]), ([appended]) => {
      const outcome = outcomeOf(message, appended!)
      return outcome instanceof Error ? Effect.fail(outcome) : Effect.succeed(outcome)
    })

  const sendAll = Effect.fnUntraced(function*<C extends Channel.Any>(
    channel: C,
    payloads: Iterable<Channel.PayloadOf<C>>,
    optionsFor: (payload: Channel.PayloadOf<C>, index: number) => AnyOptions | InvalidPublishOptions | undefined
  ) {
    const messages: Array<NewMessage> = []
    let index = 0
    for (const payload of payloads) {
      const text = Channel.encodeNow(channel, payload)
      const encoded = isDone(text) ? text.value : yield* text
      const options = optionsFor(payload, index)
      const message = options instanceof Error ? options : compose(channel, payload, encoded, options)
      if (message instanceof Error) return yield* Effect.fail(message)
      messages.push(message)
      // Lets other fibers run: nothing else here takes long enough for the scheduler to do so.
      if (++index % encodedPerTurn === 0) yield* Effect.yieldNow
    }
    if (messages.length === 0) return []
    const appended = yield* broker.append(messages)
    return yield* allOrIncomplete(channel, messages.map((message, i) => outcomeOf(message, appended[i]!)))
  })

  const chain = PublishChain.make(program, {
    encode: ({ channel, id, options, payload }) =>
      request(channel, payload, options, id) as Effect.Effect<NewMessage, RequestError>,
    append: broker.append,
    outcomeOf,
    nextId,
    refuse: (channel, error) => new PublishRefused({ channel: channel.name, error })
  })
  // The errors and services of middleware are in the types of the channel, or were provided with the layer.
  type Chained<C extends Channel.Any, A, E> = Effect.Effect<
    A,
    E | PublishErrors<C>,
    Channel.EncodingServices<C> | PublishServices<C>
  >

  const service = Publisher.of({
    prepare: <C extends Channel.Any>(
      channel: C,
      payload: Channel.PayloadOf<C>,
      options?: AnyOptions,
      dueAtMillis?: number
    ): Chained<C, Effect.Success<ReturnType<typeof chain.prepare>>, RequestError> =>
      Effect.suspend(() => {
        const problem = Envelope.misgiven(channel, options)
        return problem === undefined
          ? chain.prepare(channel, payload, options, dueAtMillis ?? clock.currentTimeMillisUnsafe())
          : Effect.fail(problem)
      }),
    publish: <C extends Channel.Any>(
      channel: C,
      payload: Channel.PayloadOf<C>,
      options?: AnyOptions
    ): Chained<C, Receipt, RequestError | StoreError> => {
      const problem = Envelope.misgiven(channel, options)
      if (problem !== undefined) return Effect.fail(problem)
      return chain.isEmpty && Chain.publishOf(channel) === undefined
        ? Effect.suspend(() => withMessage(channel, payload, options, undefined, send))
        : chain.publish(channel, payload, options)
    },
    publishAll: <C extends Channel.Any>(
      channel: C,
      payloads: Iterable<Channel.PayloadOf<C>>,
      options?: AnyOptions | ((payload: Channel.PayloadOf<C>, index: number) => AnyOptions)
    ): Chained<C, ReadonlyArray<Receipt>, RequestError | PublishIncomplete> => {
      const call = typeof options === "function" ? undefined : options
      const problem = Envelope.misgiven(channel, call, payloads ?? null)
      if (problem !== undefined) return Effect.fail(problem)
      const optionsFor = typeof options !== "function"
        ? () => options
        : (payload: Channel.PayloadOf<C>, index: number) => {
          const made = Given.made("the function of options", () => options(payload, index), Result.succeed)
          return Result.isFailure(made)
            ? new InvalidPublishOptions({ channel: channel.name, message: made.failure.message })
            : Envelope.misgiven(channel, made.success) ?? made.success as AnyOptions | undefined
        }
      return chain.isEmpty && Chain.publishOf(channel) === undefined
        ? sendAll(channel, payloads, optionsFor)
        : Effect.flatMap(
          chain.publishAll(channel, payloads, optionsFor),
          (outcomes) => allOrIncomplete(channel, outcomes)
        )
    }
  })
  return Calls.guard(yield* Calls.ofLayer("publisher"), service, ["prepare"])
})

/**
 * Provides the publisher on any broker.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Publisher, never, Broker> =>
  Layer.effect(Publisher, make(options))

/**
 * Publishes a message.
 *
 * **Details**: when it succeeds the message is stored, even if no group exists yet. It is stored once, even if a reply of the backend was lost.
 * Without an `id` the library makes one. With `delay` or `at` the message is delivered then, never earlier by the clock of the backend;
 * `Scheduler` can cancel and reschedule it meanwhile.
 *
 * **Errors**: `InvalidPayload`, `InvalidParams`, `InvalidPublishOptions`, `PayloadTooLarge`: nothing was sent. `Unavailable`: not
 * stored, the backend could not be reached within its command timeout. `PublishUncertain`: perhaps stored; publishing again with
 * its id is safe. `DurabilityNotReached`: stored, with less certainty than `durability` requires; publishing again with its id is safe.
 * `BrokerError`: refused by the backend (out of memory, permissions, a `durability` it has no command for); not stored. `PublishRefused`: a
 * middleware of the program failed; errors of the channel's own middleware are passed on.
 *
 * **Example** (Publishing to a template channel)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Channel, Publisher } from "rotif"
 *
 * const Notice = Channel.make("users.:userId.notices", { payload: Schema.Struct({ text: Schema.String }) })
 * const welcome = Publisher.publish(Notice, { text: "hi" }, { params: { userId: "42" }, id: "welcome-42" })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const publish: PublishOne<Publisher> = (channel, payload, ...options) =>
  Publisher.use((publisher) => publisher.publish(channel, payload, ...options))

/**
 * Publishes many messages to one channel in as few round trips as possible. The receipts are in the order of the payloads.
 *
 * **Details**: all payloads are checked and encoded before the first is sent. The messages are stored in order.
 *
 * **Errors**: those of `publish`, before anything is sent; `PublishIncomplete` has the outcome of each message.
 *
 * @category operations
 * @since 0.1.0
 */
export const publishAll: PublishMany<Publisher> = (channel, payloads, ...options) =>
  Publisher.use((publisher) => publisher.publishAll(channel, payloads, ...options))
