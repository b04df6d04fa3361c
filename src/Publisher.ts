/**
 * Publishing messages.
 *
 * @since 0.1.0
 */
import type { Duration } from "effect"
import { Clock, Context, Data, DateTime, Effect, Layer, Result } from "effect"
import type { Appended, BrokerError, NewMessage, Shortfall } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import * as Calls from "./internal/calls.ts"
import * as Chain from "./internal/chain.ts"
import { isDone } from "./internal/done.ts"
import { dueOf, expiryOf } from "./internal/due.ts"
import { durabilityOf } from "./internal/durability.ts"
import { identify } from "./internal/identity.ts"
import { none as noLimits } from "./internal/limits.ts"
import * as Envelope from "./internal/envelope.ts"
import * as Given from "./internal/given.ts"
import * as PublishChain from "./internal/publishChain.ts"
import * as Middleware from "./Middleware.ts"
import type { Due } from "./ScheduledStore.ts"

/**
 * What a publish did.
 *
 * - `Published`: the message is stored, at `position` in the log of its channel.
 * - `Scheduled`: it is stored and waits until `dueAt`, by the backend's clock.
 * - `Duplicate`: the message `id` was first, within the deduplication window or still waiting; nothing was added. `position` is where
 *   that one is, if it was stored in the log at once.
 *
 * @category models
 * @since 0.1.0
 */
export type Receipt =
  | { readonly _tag: "Published"; readonly id: string; readonly channel: string; readonly position: string }
  | {
    readonly _tag: "Scheduled"
    readonly id: string
    readonly channel: string
    readonly position: undefined
    readonly dueAt: DateTime.Utc
  }
  | { readonly _tag: "Duplicate"; readonly id: string; readonly channel: string; readonly position: string | undefined }

/**
 * What a message has to survive before its publish succeeds, beyond the loss of its publisher.
 *
 * **Details**: Redis copies what is written to its replicas a moment later; a master that is lost in that moment takes along what it
 * has acknowledged. With this option a publish waits until replicas have the message. In memory there is nothing to wait for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Durability {
  /** How many replicas must have the message. Default 1. 0 is only of use with `fsync`. */
  readonly replicas?: number | undefined
  /**
   * Whether it must be on disk, too: on the master's and on those of as many replicas. Needs Redis 7.2 or newer (WAITAOF) and
   * `appendonly yes`. Default `false`.
   */
  readonly fsync?: boolean | undefined
  /** How long to wait for that, once the message is stored. Default 1 second. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /** Strings that travel with the message. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * The message id: 1 to 512 bytes. Publishing the same id to the same channel again within an hour (of its due time, if it is
   * scheduled) stores nothing. Default: the `idempotencyKey` of the channel, or an id of its own.
   */
  readonly id?: string | undefined
  /** How long this id is remembered, instead of an hour; at most `maxWindow` of the publisher. */
  readonly deduplicate?: { readonly window: Duration.Input } | undefined
  /** The first message with this key within the window wins; the others are duplicates of it, whatever their ids. */
  readonly throttle?: { readonly key: string; readonly window: Duration.Input } | undefined
  /**
   * The last message with this key wins: it is delivered when none has come for so long, and replaces the one that waits. It has no
   * other id; its receipt says `Scheduled`.
   */
  readonly debounce?: { readonly key: string; readonly delay: Duration.Input } | undefined
  /** Deliver it after this span, at the earliest. 0 is now. */
  readonly delay?: Duration.Input | undefined
  /** Deliver it at this time, at the earliest. A time in the past is now. */
  readonly at?: DateTime.DateTime.Input | undefined
  /**
   * How long it may be delivered, from its publish or, if it is scheduled, from its due time. Later it is not handed out any more; see
   * the option `expired` of a subscription.
   */
  readonly expiresIn?: Duration.Input | undefined
  /** What it has to survive before this succeeds; `false` waits for nothing. Default: that of the publisher. */
  readonly durability?: Durability | false | undefined
}

/**
 * The options of a publish to this channel: a template channel wants its params.
 *
 * @category models
 * @since 0.1.0
 */
export type OptionsFor<C extends Channel.Any> = keyof Channel.ParamsOf<C> extends never ? PublishOptions
  : PublishOptions & { readonly params: Channel.ParamsOf<C> }

/**
 * The options are required exactly when the channel has params.
 *
 * @category models
 * @since 0.1.0
 */
export type OptionsArgument<C extends Channel.Any> = keyof Channel.ParamsOf<C> extends never
  ? [options?: PublishOptions | undefined]
  : [options: OptionsFor<C>]

/**
 * What the compiler says where the params of a channel are missing: no channel is of this type.
 *
 * @category models
 * @since 0.1.0
 */
export type MissingParams<C extends Channel.Any> = `missing params: ${keyof Channel.ParamsOf<C> & string}`

/**
 * The options of a publish to any channel, as middleware sees them.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyOptions = PublishOptions & { readonly params?: Readonly<Record<string, string>> | undefined }

/**
 * Options for all payloads, or made for each.
 *
 * @category models
 * @since 0.1.0
 */
export type OptionsForAll<C extends Channel.Any> =
  | OptionsFor<C>
  | ((payload: Channel.PayloadOf<C>, index: number) => OptionsFor<C>)

type OptionsForAllArgument<C extends Channel.Any> = keyof Channel.ParamsOf<C> extends never
  ? [options?: OptionsForAll<C> | undefined]
  : [options: OptionsForAll<C>]

type Published<C extends Channel.Any, Self> = Effect.Effect<
  Receipt,
  RequestError | StoreError | Middleware.PublishErrors<C>,
  Self | Channel.EncodingServices<C> | Middleware.PublishServices<C>
>

type PublishedAll<C extends Channel.Any, Self> = Effect.Effect<
  ReadonlyArray<Receipt>,
  RequestError | PublishIncomplete | Middleware.PublishErrors<C>,
  Self | Channel.EncodingServices<C> | Middleware.PublishServices<C>
>

/**
 * How one message is published, from the service (`Self` is never) or by the function below, which needs it.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOne<out Self> {
  /** It cannot be called: it says which params are missing. */
  <C extends Channel.Any>(channel: C & MissingParams<C>, payload: Channel.PayloadOf<C>): Published<C, Self>
  <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    ...options: OptionsArgument<C>
  ): Published<C, Self>
}

/**
 * The same for many messages.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishMany<out Self> {
  /** It cannot be called: it says which params are missing. */
  <C extends Channel.Any>(
    channel: C & MissingParams<C>,
    payloads: Iterable<Channel.PayloadOf<C>>
  ): PublishedAll<C, Self>
  <C extends Channel.Any>(
    channel: C,
    payloads: Iterable<Channel.PayloadOf<C>>,
    ...options: OptionsForAllArgument<C>
  ): PublishedAll<C, Self>
}

/**
 * The encoded message is larger than allowed. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends Data.TaggedError("PayloadTooLarge")<{
  readonly channel: string
  /** Size of payload and headers, in bytes. */
  readonly bytes: number
  readonly limit: number
}> {
  override get message() {
    return `a message for "${this.channel}" is ${this.bytes} bytes long, the limit is ${this.limit}: ` +
      `store large data elsewhere and publish a reference, or raise maxPayloadBytes`
  }
}

/**
 * The id, the headers or a time cannot be used. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPublishOptions extends Data.TaggedError("InvalidPublishOptions")<{
  readonly channel: string
  readonly message: string
}> {}

/**
 * The backend could not be reached in time. The message is not stored; publishing again is safe.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Data.TaggedError("Unavailable")<{
  readonly channel: string
  readonly id: string
  readonly message: string
}> {}

/**
 * The connection was lost after the message was sent, and what became of it could not be found out in time. Publish it again
 * with `{ id: error.id }` through the same `Publisher`: it is stored once in either case.
 *
 * **Details**: where `isLasting` is true, publishing it again with this id gives the same error: what would tell is gone. A plain message is
 * looked for in its log, from which it may have been removed since: by a limit of the channel, or because every group has acknowledged it
 * (`graceMillis` later). What a publish with an id, a window or a delay came to is kept for 10 minutes, and as long as its window. Whoever must
 * have it handled publishes it under another id, and it may be handled twice.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishUncertain extends Data.TaggedError("PublishUncertain")<{
  readonly channel: string
  readonly id: string
  readonly message: string
  /** Whether it will not be found out any more. */
  readonly isLasting: boolean
}> {}

/**
 * A middleware of the program (`Middleware.layer`) failed with `error`. Nothing was stored, unless it failed after it had published.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishRefused extends Data.TaggedError("PublishRefused")<{
  readonly channel: string
  /** What the middleware failed with. */
  readonly error: unknown
}> {
  override get message() {
    const why = this.error instanceof Error ? this.error.message : String(this.error)
    return `a middleware refused a message for "${this.channel}": ${why}`
  }
}

/**
 * The message is stored, as `receipt` says, and is being delivered; but the `durability` that was asked for was not reached in time: a
 * master that is lost now may take the message along.
 *
 * **Details**: to be sure, publish it again with `{ id: error.id }` through the same `Publisher`: that stores nothing as long as the
 * message is there, stores it where a new master does not have it, and waits again. Without that nothing more is to be done: replicas
 * that are only slow get the message all the same.
 *
 * @category errors
 * @since 0.1.0
 */
export class DurabilityNotReached extends Data.TaggedError("DurabilityNotReached")<{
  readonly channel: string
  readonly id: string
  /** What the publish did. */
  readonly receipt: Receipt
  /** How many replicas had the message for sure when the time was over. */
  readonly replicas: number
  readonly message: string
}> {}

/**
 * Why one message was not (surely) stored or, with `DurabilityNotReached`, is stored with less certainty than was asked for.
 *
 * @category errors
 * @since 0.1.0
 */
export type StoreError = Unavailable | PublishUncertain | DurabilityNotReached | BrokerError

/**
 * Why a message was refused before anything was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export type RequestError =
  | Channel.InvalidPayload
  | Channel.InvalidParams
  | InvalidPublishOptions
  | PayloadTooLarge
  | PublishRefused

/**
 * Some messages of a `publishAll` were not (surely) stored, or not as durably as asked for. `outcomes` has one entry for each payload, in
 * order: its receipt, or its error. Publish again those with an error, a `PublishUncertain` and a `DurabilityNotReached` with its id.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishIncomplete extends Data.TaggedError("PublishIncomplete")<{
  readonly channel: string
  readonly outcomes: ReadonlyArray<Receipt | StoreError | RequestError>
}> {
  override get message() {
    const failed = this.outcomes.filter((outcome) => outcome instanceof Error)
    const stored = failed.filter((outcome) => outcome instanceof DurabilityNotReached).length
    const all = `${this.outcomes.length} messages for "${this.channel}"`
    const what = [
      ...(failed.length > stored ? [`${failed.length - stored} of ${all} were not stored`] : []),
      ...(stored > 0 ? [`${stored} of ${all} are stored, but not as durably as asked for`] : [])
    ].join(", and ")
    return `${what}; the first: ${failed[0]?.message ?? ""}`
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Largest payload with headers, in bytes of its encoded form. Default 1 MiB; more than 64 MiB counts as 64 MiB. */
  readonly maxPayloadBytes?: number | undefined
  /** The longest window of `deduplicate` and `throttle`, and the longest delay of `debounce`. Default 7 days. */
  readonly maxWindow?: Duration.Input | undefined
  /** What every message has to survive before its publish succeeds, unless the publish says otherwise. Default: nothing more. */
  readonly durability?: Durability | undefined
}

/**
 * Publishes messages; see the functions of the same names.
 *
 * @category services
 * @since 0.1.0
 */
export class Publisher extends Context.Service<Publisher, {
  readonly publish: PublishOne<never>
  readonly publishAll: PublishMany<never>
  /**
   * Takes a message through the middleware, checks and encodes it as `publish` does, and sends nothing: whoever asks stores it, at `dueAtMillis`
   * (default: now) at the earliest. Middleware sees that as a receipt `Scheduled`. One that lets no message through leaves `messages` empty.
   */
  readonly prepare: <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    options: OptionsArgument<C>[0],
    dueAtMillis?: number
  ) => Effect.Effect<
    { readonly messages: ReadonlyArray<NewMessage>; readonly receipt: Receipt },
    RequestError | Middleware.PublishErrors<C>,
    Channel.EncodingServices<C> | Middleware.PublishServices<C>
  >
}>()("rotif/Publisher") {}

/** How long a window may be, unless the publisher says otherwise: a week. */
const usualMaxWindowMillis = 604_800_000

/**
 * Ids that are unique among processes (48 random bits a process) and ascending within one: the first digit of the counter tells
 * how many follow.
 */
const makeIds = () => {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(6))
  const process = Buffer.from(bytes).toString("base64url")
  let counter = 0
  return () => {
    const digits = (counter++).toString(36)
    return `${process}${digits.length}${digits}`
  }
}

const none: PublishOptions = {}

const publishNames: ReadonlySet<string> = new Set<keyof AnyOptions>([
  "headers",
  "id",
  "deduplicate",
  "throttle",
  "debounce",
  "delay",
  "at",
  "expiresIn",
  "durability",
  "params"
])

/** So many payloads of a `publishAll` are encoded without letting other fibers run. */
const encodedPerTurn = 256

/** The receipts, when there is one for each message. */
const allOrIncomplete = (
  channel: Channel.Any,
  outcomes: ReadonlyArray<Receipt | StoreError | RequestError>
): Effect.Effect<ReadonlyArray<Receipt>, PublishIncomplete> => {
  const receipts = outcomes.filter((outcome): outcome is Receipt => !(outcome instanceof Error))
  return receipts.length < outcomes.length
    ? Effect.fail(new PublishIncomplete({ channel: channel.name, outcomes }))
    : Effect.succeed(receipts)
}

/**
 * The options as they are used; it dies of those that cannot be.
 *
 * @internal
 */
export const givenOf = Effect.fnUntraced(function*(options: Options | undefined) {
  return {
    limit: yield* Given.orDie(Envelope.limitOf(options?.maxPayloadBytes)),
    mostMillis: yield* Given.orDie(
      Given.span("maxWindow", options?.maxWindow, { usual: usualMaxWindowMillis, least: 1, most: 315_576_000_000 })
    ),
    usualDurability: options?.durability === undefined
      ? undefined
      : yield* Given.orDie(durabilityOf(options.durability))
  }
})

/**
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const broker = yield* Broker
  const clock = yield* Clock.Clock
  const { limit, mostMillis, usualDurability } = yield* givenOf(options)
  const nextId = makeIds()
  const program = yield* Middleware.Program

  /** The message of an encoded payload, or why it is refused. */
  const compose = <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    text: string,
    options: AnyOptions | undefined,
    id?: string
  ): NewMessage | RequestError => {
    const invalid = (message: string) => new InvalidPublishOptions({ channel: channel.name, message })
    const params = Envelope.paramsOf(channel, options?.params)
    if (params._tag === "Failure") return params.failure
    const problem = options === undefined
      ? undefined
      : Envelope.optionsProblem(options, publishNames) ?? Envelope.headersProblem(options.headers)
    if (problem !== undefined) return invalid(problem)
    const identity = identify(
      options ?? none,
      channel.idempotencyKey === undefined ? undefined : () => channel.idempotencyKey!(payload),
      () => id ?? nextId(),
      mostMillis
    )
    if (typeof identity === "string") return invalid(identity)
    let due: Due | undefined = identity.delayMillis === undefined ? undefined : { delayMillis: identity.delayMillis }
    let expiresInMillis: number | undefined
    if (options?.delay !== undefined || options?.at !== undefined) {
      const found = dueOf(options, clock.currentTimeMillisUnsafe())
      if (typeof found === "string") return invalid(found)
      due = found
    }
    if (options?.expiresIn !== undefined) {
      const found = expiryOf(options.expiresIn, clock.currentTimeMillisUnsafe())
      if (typeof found === "string") return invalid(found)
      expiresInMillis = found
    }
    let durability = usualDurability
    if (options?.durability !== undefined) {
      const found = options.durability === false ? undefined : durabilityOf(options.durability)
      if (found?._tag === "Failure") return invalid(found.failure.message)
      durability = found?.success
    }
    const message: NewMessage = {
      id: identity.id,
      channel: channel.name,
      payload: text,
      headers: options?.headers,
      params: params.success,
      limits: Channel.limits(channel) ?? noLimits,
      window: identity.window,
      due,
      replace: identity.replace,
      expiresInMillis,
      durability
    }
    const bytes = Envelope.bytesAbove(limit, message)
    return bytes === undefined ? message : new PayloadTooLarge({ channel: channel.name, bytes, limit })
  }

  /** Goes on with the message of a payload; at once, where its schema has the text at once. Runs in a fiber. */
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

  const outcomeOf = (message: NewMessage, appended: Appended): Receipt | StoreError => {
    const { channel, id } = message
    const asDurable = (receipt: Receipt, shortfall: Shortfall | undefined): Receipt | DurabilityNotReached => {
      if (shortfall === undefined) return receipt
      const { problem, replicas } = shortfall
      return new DurabilityNotReached({
        channel,
        id,
        receipt,
        replicas,
        message:
          `the message ${id} for "${channel}" is stored, but only ${replicas} of ${
            message.durability?.replicas ?? replicas
          } replicas had it in time; to be sure, publish it again with { id: "${id}" }` +
          (problem === undefined ? "" : ` (${problem})`)
      })
    }
    switch (appended._tag) {
      case "Stored":
        return asDurable({ _tag: "Published", id, channel, position: appended.position }, appended.shortfall)
      case "Scheduled":
        return asDurable({
          _tag: "Scheduled",
          id,
          channel,
          position: undefined,
          dueAt: DateTime.makeUnsafe(appended.dueAtMillis)
        }, appended.shortfall)
      case "Duplicate":
        return asDurable(
          { _tag: "Duplicate", id: appended.id, channel, position: appended.position },
          appended.shortfall
        )
      case "Failed":
        return appended.error.reason === "Unavailable"
          ? new Unavailable({ channel, id, message: appended.error.message })
          : appended.error
      case "Uncertain":
        return new PublishUncertain({
          channel,
          id,
          isLasting: appended.isLasting === true,
          message: `it is not known whether the message ${id} for "${channel}" was stored; ` +
            (appended.isLasting === true
              ? "whoever must have it handled publishes it under another id, and it may be handled twice"
              : `publish it again with { id: "${id}" }`) +
            ` (${appended.error.message})`
        })
    }
  }

  const send = (message: NewMessage): Effect.Effect<Receipt, StoreError> =>
    Effect.flatMap(broker.append([message]), ([appended]) => {
      const outcome = outcomeOf(message, appended!)
      return outcome instanceof Error ? Effect.fail(outcome) : Effect.succeed(outcome)
    })

  /** What a publish was called with and no type would allow. */
  const misgiven = (
    channel: Channel.Any,
    options: unknown,
    payloads: unknown = []
  ): InvalidPublishOptions | undefined => {
    const problem = Envelope.callProblem(channel, options) ?? Envelope.payloadsProblem(payloads)
    if (problem === undefined) return undefined
    return new InvalidPublishOptions({
      channel: Channel.isSource(channel) ? Channel.describe(channel) : "",
      message: problem
    })
  }

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
      // Others have their turn: nothing else here takes long enough for the scheduler to see to it.
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
  // What middleware fails with and needs is in the types of the channel, and was provided with the layer.
  type Chained<C extends Channel.Any, A, E> = Effect.Effect<
    A,
    E | Middleware.PublishErrors<C>,
    Channel.EncodingServices<C> | Middleware.PublishServices<C>
  >

  const service = Publisher.of({
    prepare: <C extends Channel.Any>(
      channel: C,
      payload: Channel.PayloadOf<C>,
      options?: AnyOptions,
      dueAtMillis?: number
    ): Chained<C, Effect.Success<ReturnType<typeof chain.prepare>>, RequestError> =>
      Effect.suspend(() => {
        const problem = misgiven(channel, options)
        return problem === undefined
          ? chain.prepare(channel, payload, options, dueAtMillis ?? clock.currentTimeMillisUnsafe())
          : Effect.fail(problem)
      }),
    publish: <C extends Channel.Any>(
      channel: C,
      payload: Channel.PayloadOf<C>,
      options?: AnyOptions
    ): Chained<C, Receipt, RequestError | StoreError> => {
      const problem = misgiven(channel, options)
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
      const problem = misgiven(channel, call, payloads ?? null)
      if (problem !== undefined) return Effect.fail(problem)
      const optionsFor = typeof options !== "function"
        ? () => options
        : (payload: Channel.PayloadOf<C>, index: number) => {
          const made = Given.made("the function of options", () => options(payload, index), Result.succeed)
          return Result.isFailure(made)
            ? new InvalidPublishOptions({ channel: channel.name, message: made.failure.message })
            : misgiven(channel, made.success) ?? made.success as AnyOptions | undefined
        }
      return chain.isEmpty && Chain.publishOf(channel) === undefined
        ? sendAll(channel, payloads, optionsFor)
        : Effect.flatMap(
          chain.publishAll(channel, payloads, optionsFor),
          (outcomes) => allOrIncomplete(channel, outcomes)
        )
    }
  })
  return Calls.guard(yield* Calls.ofLayer("publisher"), service, ["publish", "publishAll"])
})

/**
 * The publisher as a layer, on any broker.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Publisher, never, Broker> =>
  Layer.effect(Publisher, make(options))

/**
 * Publishes a message.
 *
 * **Details**: when it succeeds the message is stored, also when no group exists yet. It is stored once, also when the answer of
 * the backend was lost. Without an `id` the library makes one. With `delay` or `at` it is delivered then, never earlier by the
 * backend's clock; see `Scheduler` for what may be done meanwhile.
 *
 * **Errors**: `InvalidPayload`, `InvalidParams`, `InvalidPublishOptions`, `PayloadTooLarge`: nothing was sent. `Unavailable`: not
 * stored, the backend could not be reached within its command timeout. `PublishUncertain`: perhaps stored; publishing again with
 * its id is safe. `DurabilityNotReached`: stored, with less certainty than `durability` asks for; publishing again with its id is safe.
 * `BrokerError`: refused by the backend (out of memory, permissions, a `durability` it has no command for); not stored. `PublishRefused`: a middleware of the
 * program failed; the errors of the channel's own middleware come as they are.
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
export const publish: PublishOne<Publisher> = <C extends Channel.Any>(
  channel: C,
  payload: Channel.PayloadOf<C>,
  ...options: OptionsArgument<C>
) => Publisher.use((publisher) => publisher.publish(channel, payload, ...options))

/**
 * Publishes many messages to one channel in as few round trips as possible; receipts in the order of the payloads.
 *
 * **Details**: all payloads are checked and encoded before the first is sent. The messages are stored in order.
 *
 * **Errors**: as `publish`, before anything is sent; `PublishIncomplete` tells for each message what became of it.
 *
 * @category operations
 * @since 0.1.0
 */
export const publishAll: PublishMany<Publisher> = <C extends Channel.Any>(
  channel: C,
  payloads: Iterable<Channel.PayloadOf<C>>,
  ...options: OptionsForAllArgument<C>
) => Publisher.use((publisher) => publisher.publishAll(channel, payloads, ...options))
