/**
 * Pub/Sub: messages for the listeners of this moment. They are delivered at most once, and nothing is stored.
 *
 * The channels are those of `Channel`, with the same schemas, params and patterns. Messages of this module and messages of `Publisher` are
 * independent of each other.
 *
 * @since 0.1.0
 */
import type { Scope } from "effect"
import { Context, Effect, Layer, Stream } from "effect"
import type { BrokerError } from "./Broker.ts"
import { Broker } from "./Broker.ts"
import * as Channel from "./Channel.ts"
import type { InvalidListener, Listener, ListenOptions, Message, StreamOptions } from "./broadcast/listener.ts"
import * as Listening from "./broadcast/listening.ts"
import type { BroadcastMessage, BroadcastPort } from "./broker/broadcast.ts"
import * as Calls from "./internal/runningCalls.ts"
import * as Ending from "./internal/ending.ts"
import * as Given from "./internal/optionChecks.ts"
import * as Envelope from "./publisher/envelope.ts"
import type { InvalidPublishOptions } from "./publisher/outcome.ts"
import { PayloadTooLarge } from "./publisher/outcome.ts"

export type { Gap, Listener, ListenOptions, Message, Stats, StreamOptions } from "./broadcast/listener.ts"
export { InvalidListener } from "./broadcast/listener.ts"

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
  Stream.unwrap(Effect.flatMap(Broadcast, (broadcast) => Listening.subscribe(broadcast, source, options ?? {})))

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
export const listen = <S extends Channel.Source, E = never, R = never>(
  source: S,
  options: ListenOptions<S, E, R>
): Effect.Effect<
  Listener,
  InvalidListener | BrokerError,
  R | Channel.DecodingServices<S> | Broadcast | Scope.Scope
> => Effect.flatMap(Broadcast, (broadcast) => Listening.listen(broadcast, source, options))

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
