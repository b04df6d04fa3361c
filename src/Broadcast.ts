/**
 * Pub/Sub: messages for the listeners of this moment. They are delivered at most once, and nothing is stored.
 *
 * The channels are those of `Channel`, with the same schemas, params and patterns. Messages of this module and messages of `Publisher` are
 * independent of each other.
 *
 * @since 0.1.0
 */
import { Array as Arr, Cause, Context, Effect, Exit, Layer, Schema, Scope, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type { BroadcastMessage, BroadcastPort } from "./broker/broadcast.ts"
import * as Mailbox from "./internal/broadcastBuffer.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Ending from "./internal/ending.ts"
import { pretty } from "./internal/failure.ts"
import { isDone } from "./internal/immediate.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Shape from "./internal/optionShape.ts"
import { isTold, makeRepeating, tellEnd } from "./internal/reports.ts"
import * as Workers from "./internal/workers.ts"
import * as Envelope from "./publisher/envelope.ts"
import type { InvalidPublishOptions } from "./publisher/outcome.ts"
import { PayloadTooLarge } from "./publisher/outcome.ts"

/**
 * A message as a listener gets it: for a union one member for each channel, discriminated by `channel`.
 *
 * @category models
 * @since 0.1.0
 */
export type Message<S extends Channel.Source> = Channel.MessageShape<S> extends infer Shape
  ? Shape extends unknown ? Shape & { readonly headers: Readonly<Record<string, string>> } : never
  : never

/**
 * A gap: messages are missing at this place.
 *
 * - `reconnected`: listening was interrupted. The number of messages meanwhile is unknown; it may be 0.
 * - `overflow`: this many messages were dropped, because they came faster than the listener handled them.
 *
 * @category models
 * @since 0.1.0
 */
export type Gap =
  | { readonly reason: "reconnected" }
  | { readonly reason: "overflow"; readonly dropped: number }

/**
 * Options of one publish to Pub/Sub.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /** Strings that travel with the message. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** The options are required exactly when the channel has params. */
type OptionsArgument<C extends Channel.Any> = Channel.OptionsArgument<C, Channel.WithParams<C, PublishOptions>>

const publishNames: ReadonlySet<string> = new Set<keyof LooseOptions>(["headers", "params"])

/** The options for any channel. The functions below know whether params are required. */
type LooseOptions = PublishOptions & { readonly params?: Readonly<Record<string, string>> | undefined }

/**
 * The errors of a message that was refused before anything was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export type RequestError =
  | Channel.InvalidPayload
  | Channel.InvalidParams
  | InvalidPublishOptions
  | PayloadTooLarge

/**
 * Options of a stream of Pub/Sub messages: how much it buffers, and what it does when the buffer is full.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions<R> {
  /** At most this many messages wait for a busy listener. Default 4,096. */
  readonly capacity?: number | undefined
  /** Their payloads have at most this many characters together. Default 64 Mi. */
  readonly maxBufferedChars?: number | undefined
  /**
   * What happens to a message when it is full: `"dropping"` drops it, `"sliding"` the oldest one instead, and `"bounded"` (the
   * default) drops it and tells `onGap` how many were dropped, at the place where they are missing.
   */
  readonly overflow?: "bounded" | "dropping" | "sliding" | undefined
  /**
   * Runs where messages are missing: after the message in front of them is taken, before the next one. It is the place to look up
   * anew what the messages would have told. If it takes longer than 30 seconds it is interrupted, which is logged. Default: a warning in the log.
   */
  readonly onGap?: ((gap: Gap) => Effect.Effect<unknown, never, R>) | undefined
  /**
   * Runs for a message that the schema of its channel cannot decode, or that Rotif did not write; the message is skipped. If it takes longer
   * than 5 seconds it is interrupted, which is logged. Default: a warning in the log, less often when there are many.
   */
  readonly onInvalid?: ((error: Channel.InvalidPayload) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * Options of a listener: those of a stream, and the handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListenOptions<S extends Channel.Source, E, R> extends StreamOptions<R> {
  /** Handles one message. A failure is logged, and the next message follows: there is no retry. */
  readonly handler: (message: Message<S>) => Effect.Effect<unknown, E, R>
  /** At most this many handlers run at a time. 1 (the default) keeps the order of each channel. */
  readonly concurrency?: number | undefined
}

/**
 * An option of a listener cannot be used. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidListener extends Schema.TaggedError<InvalidListener>()("InvalidListener", Given.problemFields) {}

/**
 * Counts since a listener started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Messages whose handler has ended, with success or not. */
  readonly handled: number
  readonly failed: number
  /** Messages that could not be decoded. */
  readonly invalid: number
  /** Messages dropped because the listener was too slow. */
  readonly dropped: number
  /** How often listening was interrupted. */
  readonly interruptions: number
  /** Messages that wait for the handler now. */
  readonly buffered: number
}

/**
 * A running listener.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  readonly stats: Effect.Effect<Stats>
  /** Ends the listener and interrupts its running handlers, except for a handler that calls this: it continues. */
  readonly stop: Effect.Effect<void>
}

/**
 * Options of `make` and `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The largest payload with headers, in bytes of its encoded form. Default 1 MiB; more than 64 MiB counts as 64 MiB. */
  readonly maxPayloadBytes?: number | undefined
}

type Published<C extends Channel.Any, Self> = Effect.Effect<
  void,
  RequestError | BrokerError,
  Self | Channel.EncodingServices<C>
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
  ...options: OptionsArgument<C>
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
  ...options: OptionsArgument<C>
) => Published<C, Self>

/**
 * The service that publishes and listens. Its members are described at the functions of this module.
 *
 * @category services
 * @since 0.1.0
 */
export class Broadcast extends Context.Service<Broadcast, {
  readonly publish: PublishOne<never>
  readonly publishAll: PublishMany<never>
  readonly listen: BroadcastPort["listen"]
  /**
   * The ends of the listeners that have not ended yet.
   *
   * @internal
   */
  readonly endings: Ending.Registry
}>()("rotif/Broadcast") {}

/**
 * Makes the service on the broker in the context. Use `layer` unless you wire services yourself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options?: Options) {
  const { broadcast } = yield* Broker
  const endings = yield* Ending.registry
  const limit = yield* Given.orDie(Envelope.limitOf("maxPayloadBytes", options?.maxPayloadBytes))

  const castOf = <C extends Channel.Any>(
    channel: C,
    payload: Channel.PayloadOf<C>,
    options: LooseOptions | undefined
  ): Effect.Effect<BroadcastMessage, RequestError, Channel.EncodingServices<C>> =>
    Effect.flatMap(Channel.encode(channel, payload), (text): Effect.Effect<BroadcastMessage, RequestError> => {
      const { name } = channel
      const params = Envelope.paramsOf(channel, options, publishNames)
      if (params instanceof Error) return Effect.fail(params)
      const cast: BroadcastMessage = { channel: name, payload: text, headers: options?.headers, params }
      const bytes = Envelope.bytesAbove(limit, cast)
      return bytes !== undefined
        ? Effect.fail(new PayloadTooLarge({ channel: name, bytes, limit }))
        : Effect.succeed(cast)
    })

  const service = Broadcast.of({
    publish: <C extends Channel.Any>(channel: C, payload: Channel.PayloadOf<C>, options?: LooseOptions) => {
      const problem = Envelope.misgiven(channel, options)
      return problem === undefined
        ? Effect.flatMap(castOf(channel, payload, options), (cast) => broadcast.publish([cast]))
        : Effect.fail(problem)
    },
    publishAll: <C extends Channel.Any>(
      channel: C,
      payloads: Iterable<Channel.PayloadOf<C>>,
      options?: LooseOptions
    ) => {
      const problem = Envelope.misgiven(channel, options, payloads ?? null)
      return problem === undefined
        ? Effect.flatMap(Effect.forEach(payloads, (payload) => castOf(channel, payload, options)), broadcast.publish)
        : Effect.fail(problem)
    },
    listen: broadcast.listen,
    endings
  })
  return Calls.guard(yield* Calls.ofLayer("broadcast"), service, ["listen", "endings"])
})

/**
 * Provides Pub/Sub on any broker.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Broadcast, never, Broker> =>
  Layer.effect(Broadcast, make(options))

/**
 * Sends a message to all current listeners.
 *
 * **Details**: it succeeds when the backend has taken the message, with or without listeners. It is sent at most once: if the reply of the backend
 * is lost, it is not sent again.
 *
 * **Errors**: `InvalidPayload`, `InvalidParams`, `InvalidPublishOptions`, `PayloadTooLarge`: nothing was sent. `BrokerError`: with reason
 * `Uncertain` it may have been sent, otherwise it was not.
 *
 * **Example** (A price for all current listeners)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Broadcast, Channel } from "rotif"
 *
 * const Price = Channel.make("prices.:symbol", { payload: Schema.Struct({ cents: Schema.Int }) })
 * const tick = Broadcast.publish(Price, { cents: 4200 }, { params: { symbol: "ACME" } })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const publish: PublishOne<Broadcast> = (channel, payload, ...options) =>
  Broadcast.use((broadcast) => broadcast.publish(channel, payload, ...options))

/**
 * Sends many messages to one channel in as few round trips as possible, in order.
 *
 * **Errors**: those of `publish`, before anything is sent. After a `BrokerError` some of the first messages may have been sent.
 *
 * @category operations
 * @since 0.1.0
 */
export const publishAll: PublishMany<Broadcast> = (channel, payloads, ...options) =>
  Broadcast.use((broadcast) => broadcast.publishAll(channel, payloads, ...options))

/** Listening. */

const option = Given.failing(InvalidListener)

const most = Number.MAX_SAFE_INTEGER

const shape = Shape.shape<Partial<ListenOptions<Channel.Any, unknown, unknown>>>()({
  capacity: Shape.count({ usual: 4096, least: 1, most }),
  maxBufferedChars: Shape.count({ usual: 64 * 1024 * 1024, least: 1, most }),
  overflow: Shape.choice("bounded", "dropping", "sliding"),
  onGap: Shape.func,
  onInvalid: Shape.func,
  handler: Shape.func,
  concurrency: Shape.count({ usual: 1, least: 1, most })
})

/** Subscribes in the current scope: the buffer, and the handling of an item of it. */
const open = Effect.fnUntraced(function*<S extends Channel.Source, R>(source: S, options: StreamOptions<R>) {
  const broadcast = yield* Broadcast
  yield* option(Channel.checkSource("source", source))
  const given = yield* option(Given.known("the options", options, shape.names))
  const { capacity, concurrency, maxBufferedChars: maxChars, overflow } = yield* option(shape.read(given))
  const name = Channel.describe(source)
  const decoderFor = Channel.decoderFor(source)
  const mailbox = Mailbox.make({ capacity, maxChars, overflow })
  const counts = { invalid: 0, interruptions: 0 }

  const onGap = options.onGap ?? ((gap: Gap) =>
    Effect.logWarning(
      gap.reason === "overflow"
        ? `rotif: ${gap.dropped} messages for a listener on "${name}" were dropped, it is too slow`
        : `rotif: listening on "${name}" was interrupted, messages may be missing`
    ))
  const onInvalid = options.onInvalid ?? ((error: Channel.InvalidPayload) =>
    isTold(counts.invalid)
      ? Effect.logWarning(`rotif: message number ${counts.invalid} that was skipped on "${name}": ${error.message}`)
      : Effect.void)

  const invalid = (error: Channel.InvalidPayload, count = 1) => {
    counts.invalid += count
    return Effect.as(Given.prompt("onInvalid", Given.effect("onInvalid", () => onInvalid(error))), undefined)
  }
  const foreign = (channel: string, count = 1) =>
    invalid(
      new Channel.InvalidPayload({
        channel,
        operation: "decode",
        message: `what arrived on "${channel}" is not a message of this listener`
      }),
      count
    )

  const callbacks = makeRepeating((round, cause) =>
    Effect.logError(`rotif: code of a listener on "${name}" failed (${round} so far), and it goes on`, pretty(cause))
  )

  /** Decodes the message of an item, if it is one. */
  const decoded = (
    item: Mailbox.Item
  ): Effect.Effect<Message<S> | undefined, never, R | Channel.DecodingServices<S>> => {
    if (item instanceof Mailbox.Missing) {
      const { dropped } = item
      const gap: Gap = dropped === undefined ? { reason: "reconnected" } : { reason: "overflow", dropped }
      const told = Given.prompt("onGap", Given.effect("onGap", () => onGap(gap)), Given.longestWorkMillis)
      return Effect.as(told, undefined)
    }
    if (item instanceof Mailbox.Malformed) return foreign(item.channel, item.count)
    const { channel, headers = {}, params = {} } = item
    const decode = decoderFor(channel)
    if (decode === undefined) return foreign(channel)
    const value = decode(item.payload)
    return Effect.matchEffect(isDone(value) ? value : Given.prompt("the schema", value), {
      onFailure: (error) => invalid(error),
      // The schema of the source made the payload, and `publish` checked the params.
      onSuccess: (payload) => Effect.succeed({ channel, payload, params, headers } as unknown as Message<S>)
    })
  }

  /** The same. The schema, `onGap` and `onInvalid` must not end what listens. */
  const open = (item: Mailbox.Item) =>
    Effect.catchCause(
      decoded(item),
      (cause) => Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.as(callbacks.failed(cause), undefined)
    )

  yield* broadcast.listen(Channel.selector(source), {
    onMessage: mailbox.offer,
    onMalformed: mailbox.malformed,
    onGap: () => {
      counts.interruptions++
      mailbox.interrupted()
    }
  })
  return { name, mailbox, counts, concurrency, open, endings: broadcast.endings }
})

/** At most this many messages are decoded before the first of them is passed on. */
const chunkSize = 256

/**
 * Listens to a channel, a pattern or a union, as a stream of messages.
 *
 * **Details**: it listens from the start of the stream to its end. After a lost connection the stream continues by itself, and `onGap` runs.
 * Messages wait in this process for a slow consumer, at most `capacity` of them.
 *
 * **Errors**: `InvalidListener` if an option cannot be used; `BrokerError` if it could not subscribe in time, or has no permission. Afterwards it
 * does not fail.
 *
 * **Example** (All prices)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Broadcast, Channel } from "rotif"
 *
 * const Price = Channel.make("prices.:symbol", { payload: Schema.Struct({ cents: Schema.Int }) })
 * const watch = Broadcast.subscribe(Price).pipe(
 *   Stream.runForEach(({ params, payload }) => Effect.log(`${params.symbol}: ${payload.cents}`))
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const subscribe = <S extends Channel.Source, R = never>(
  source: S,
  options?: StreamOptions<R>
): Stream.Stream<Message<S>, InvalidListener | BrokerError, Broadcast | R | Channel.DecodingServices<S>> =>
  Stream.unwrap(Effect.gen(function*() {
    const { mailbox, name, open: decode } = yield* open(source, options ?? {})
    yield* Effect.addFinalizer((exit) => tellEnd(`the stream of what is broadcast on "${name}"`, exit))
    /** A gap that is reported after the messages in front of it are taken. */
    let next: Mailbox.Item | undefined
    return Stream.fromPull(Effect.succeed(Effect.gen(function*() {
      const messages: Array<Message<S>> = []
      while (true) {
        const item = next ?? (messages.length < chunkSize ? mailbox.poll() : undefined)
        next = undefined
        const isGap = item instanceof Mailbox.Missing
        if ((item === undefined || isGap) && Arr.isReadonlyArrayNonEmpty(messages)) {
          next = item
          return messages
        }
        if (item === undefined) {
          yield* mailbox.arrived
          continue
        }
        const message = yield* decode(item)
        if (message !== undefined) messages.push(message)
      }
    })))
  }))

/**
 * Listens with a handler in the current scope, and returns a handle.
 *
 * **Details**: it listens when this succeeds: it gets every message from then on. Closing the scope ends it and interrupts running handlers. Each
 * message is handled at most once.
 *
 * **Errors**: those of `subscribe`.
 *
 * **Example** (Forgetting what has changed)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Broadcast, Channel } from "rotif"
 *
 * const Changed = Channel.make("cache.changed", { payload: Schema.Struct({ key: Schema.String }) })
 * const cache = new Map<string, string>()
 *
 * const invalidation = Broadcast.listen(Changed, {
 *   handler: (message) => Effect.sync(() => cache.delete(message.payload.key)),
 *   onGap: () => Effect.sync(() => cache.clear())
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const listen = Effect.fnUntraced(function*<S extends Channel.Source, E = never, R = never>(
  source: S,
  options: ListenOptions<S, E, R>
): Effect.fn.Return<
  Listener,
  InvalidListener | BrokerError,
  R | Channel.DecodingServices<S> | Broadcast | Scope.Scope
> {
  yield* option(Given.record("the options", options))
  yield* option(Given.required("handler", options.handler))
  const scope = yield* Scope.make()
  const { concurrency, counts, endings, mailbox, name, open: decode } = yield* open(source, options).pipe(
    Scope.provide(scope),
    Effect.onError(() => Scope.close(scope, Exit.void))
  )
  let handled = 0
  let failed = 0
  const failedOn = (cause: Cause.Cause<unknown>, channel: string): Effect.Effect<void> => {
    handled++
    failed++
    return isTold(failed)
      ? Effect.logError(
        `rotif: the handler of a listener on "${name}" failed on "${channel}" (${failed} so far)`,
        pretty(cause)
      )
      : Effect.void
  }

  const handle = (message: Message<S>, channel: string) =>
    Effect.matchCauseEffect(Given.effect(`the handler of a listener on "${name}"`, () => options.handler(message)), {
      onSuccess: () => Effect.sync(() => void handled++),
      onFailure: (cause) => failedOn(cause, channel)
    })
  const handleOne = ({ turn, work }: Workers.Wrappers) =>
    turn(Effect.gen(function*() {
      const item = mailbox.poll()
      if (item === undefined) return yield* mailbox.arrived
      const handled = Effect.scoped(work(Effect.gen(function*() {
        const message = yield* decode(item)
        if (message !== undefined) yield* handle(message, "channel" in item ? item.channel : name)
      })))
      // Its fiber has died outside of everything that handles failures.
      return yield* Effect.catchCause(
        handled,
        (cause) => Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : failedOn(cause, name)
      )
    }))
  const ending = yield* Workers.start({
    drainMillis: 0,
    loops: (ways) => Array.from({ length: concurrency }, () => Effect.forever(handleOne(ways))),
    leave: Scope.close(scope, Exit.void)
  })
  endings.keep(ending)

  return {
    stats: Effect.sync(() => ({
      ...counts,
      handled,
      failed,
      dropped: mailbox.dropped(),
      buffered: mailbox.size()
    })),
    stop: ending.ask
  }
})

/**
 * Runs a listener for as long as the layer; `Layer.launch` runs it as a program.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerListener = <S extends Channel.Source, E = never, R = never>(
  source: S,
  options: ListenOptions<S, E, R>
): Layer.Layer<
  never,
  InvalidListener | BrokerError,
  Exclude<R | Channel.DecodingServices<S> | Broadcast, Scope.Scope>
> => Layer.effectDiscard(listen(source, options))
