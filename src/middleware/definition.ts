/** Middleware: its types and its constructors. */
import type { Effect, Types } from "effect"
import { Context } from "effect"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import type { AnyOptions } from "../publisher/options.ts"
import type { Receipt, RequestError, StoreError } from "../publisher/outcome.ts"

/**
 * A request to publish. To change it, pass on a copy: `next({ ...request, payload })`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishRequest {
  readonly channel: Channel.Any
  /** The payload as it was given, before it is encoded. */
  readonly payload: unknown
  readonly options: AnyOptions
  /** The message id, where `options` has none. It stays the same, so that calling `next` again after a lost answer is safe. */
  readonly id: string
  readonly [Notes]: unknown
  readonly [Home]: object
}

/**
 * Any message, as a middleware sees it.
 *
 * @category models
 * @since 0.1.0
 */
export interface AnyMessage extends Message.Envelope {
  readonly channel: string
  readonly payload: unknown
  readonly params: Readonly<Record<string, string>>
}

/**
 * The errors of a publish without any middleware.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishFailure = RequestError | StoreError

/**
 * The rest of a publish. `unhandled` stands for the errors of the middleware within.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishNext = (
  request: PublishRequest
) => Effect.Effect<Receipt, PublishFailure | Types.unhandled>

/**
 * The rest of the handling of a message. `unhandled` stands for the errors of the handler and of the middleware within; `Provides`
 * are services that the middleware has to provide.
 *
 * @category models
 * @since 0.1.0
 */
export type ProcessNext<Provides = never> = (message: AnyMessage) => Effect.Effect<unknown, Types.unhandled, Provides>

/**
 * The code of a middleware of publishing.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishWrap<out E, out R> = (
  next: PublishNext
) => (request: PublishRequest) => Effect.Effect<Receipt, PublishFailure | Types.unhandled | E, R>

/**
 * The code of a middleware of handling.
 *
 * @category models
 * @since 0.1.0
 */
export type ProcessWrap<out E, out R, in Provides = never> = (
  next: ProcessNext<Provides>
) => (message: AnyMessage) => Effect.Effect<unknown, Types.unhandled | E, R>

// These symbols exist in types only: without them inference from the code would lose the types.
declare const PublishTypes: unique symbol

declare const ProcessTypes: unique symbol

/**
 * A middleware of publishing that may fail with `E` and needs `R`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Publish<out E = never, out R = never> {
  readonly [PublishTypes]: { readonly error: E; readonly services: R }
  readonly publish: PublishWrap<E, R>
}

/**
 * A middleware of handling that may fail with `E`, needs `R`, and provides `Provides` to the handler and the middleware within.
 *
 * @category models
 * @since 0.1.0
 */
export interface Process<out E = never, out R = never, in Provides = never> {
  readonly [ProcessTypes]: { readonly error: E; readonly services: R; readonly provides: (service: Provides) => void }
  readonly process: ProcessWrap<E, R, Provides>
}

/**
 * Any middleware of publishing. An error of it is an object, so that it can be recognised later.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyPublish = Publish<object, unknown>

/**
 * Any middleware of handling. An error of it is an object, so that it can be recognised later.
 *
 * @category models
 * @since 0.1.0
 */
export type AnyProcess = Process<object, unknown>

/**
 * Any middleware: of publishing, of handling, or of both.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = AnyPublish | AnyProcess

/**
 * Makes a middleware of publishing.
 *
 * **Example** (A header for every message)
 *
 * ```ts
 * import { Middleware } from "rotif"
 *
 * const region = Middleware.publish((next) => (request) => next(Middleware.withHeaders(request, { region: "eu" })))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const publish = <X extends Effect.Effect<Receipt, unknown, unknown>>(
  wrap: (next: PublishNext) => (request: PublishRequest) => X
): Publish<Exclude<Effect.Error<X>, PublishFailure | Types.unhandled>, Effect.Services<X>> =>
  // The errors and services are in the type alone.
  ({ publish: wrap }) as never

/**
 * Makes a middleware of handling.
 *
 * **Example** (Skipping what another region handles)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Middleware } from "rotif"
 *
 * const onlyHere = Middleware.process((next) => (message) =>
 *   message.headers["region"] === "eu" ? next(message) : Effect.void
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const process = <X extends Effect.Effect<unknown, unknown, unknown>>(
  wrap: (next: ProcessNext) => (message: AnyMessage) => X
): Process<Exclude<Effect.Error<X>, Types.unhandled>, Effect.Services<X>> => providing<never>()(wrap)

/**
 * Makes a middleware that provides services to the handler and to the middleware within:
 * `Middleware.providing<CurrentUser>()((next) => (message) => Effect.provideService(next(message), CurrentUser, …))`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const providing = <Provides>() =>
<X extends Effect.Effect<unknown, unknown, unknown>>(
  wrap: (next: ProcessNext<Provides>) => (message: AnyMessage) => X
): Process<Exclude<Effect.Error<X>, Types.unhandled>, Effect.Services<X>, Provides> =>
  // The errors and services are in the type alone.
  ({ process: wrap }) as never

/**
 * Makes one middleware of the two sides, for `layer`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const both = <E1, R1, E2, R2, Provides>(
  publish: Publish<E1, R1>,
  process: Process<E2, R2, Provides>
): Publish<E1, R1> & Process<E2, R2, Provides> => ({ ...publish, ...process })

/**
 * Adds headers to a request.
 *
 * @category operations
 * @since 0.1.0
 */
export const withHeaders = (
  request: PublishRequest,
  headers: Readonly<Record<string, string>>
): PublishRequest => ({
  ...request,
  options: { ...request.options, headers: { ...request.options.headers, ...headers } }
})

/** Types of chains. */

type PublishErrorOf<M> = M extends AnyPublish ? M[typeof PublishTypes]["error"] : never

export type PublishServicesOf<M> = M extends AnyPublish ? M[typeof PublishTypes]["services"] : never

type ErrorOf<M> = M extends AnyProcess ? M[typeof ProcessTypes]["error"] : never

export type ProcessServicesOf<M> = M extends AnyProcess ? M[typeof ProcessTypes]["services"] : never

type ProvidedBy<M extends AnyProcess> = Parameters<M[typeof ProcessTypes]["provides"]>[0]

/**
 * The errors that a chain of handling adds to those of its handler.
 *
 * @category models
 * @since 0.1.0
 */
export type ProcessErrors<Ms extends ReadonlyArray<AnyProcess>> = ErrorOf<Ms[number]>

/**
 * The services of a handler that needs `R` with a chain around it: without those the chain provides, with those the chain needs.
 *
 * @category models
 * @since 0.1.0
 */
export type ProcessServices<Ms extends ReadonlyArray<AnyProcess>, R> = Ms extends readonly [
  infer Head extends AnyProcess,
  ...infer Rest extends ReadonlyArray<AnyProcess>
] ? ProcessServicesOf<Head> | Exclude<ProcessServices<Rest, R>, ProvidedBy<Head>>
  : R | ProcessServicesOf<Ms[number]>

/**
 * Marks a channel whose publishes go through middleware that may fail with `E` and needs `R`.
 *
 * @category models
 * @since 0.1.0
 */
export interface OnPublish<out E, out R> {
  readonly [ChannelMiddleware]: Publish<E, R>
}

/**
 * The errors that middleware adds to a publish to this channel.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishErrors<C> = C extends OnPublish<unknown, unknown>
  ? C[typeof ChannelMiddleware][typeof PublishTypes]["error"]
  : never

/**
 * The services that middleware needs for a publish to this channel.
 *
 * @category models
 * @since 0.1.0
 */
export type PublishServices<C> = C extends OnPublish<unknown, unknown>
  ? C[typeof ChannelMiddleware][typeof PublishTypes]["services"]
  : never

/**
 * A channel whose publishes go through these middlewares.
 *
 * @category models
 * @since 0.1.0
 */
export type ForChannel<C extends Channel.Any, Ms extends ReadonlyArray<AnyPublish>> =
  & Channel.Channel<C["name"], C["payload"]>
  & OnPublish<PublishErrors<C> | PublishErrorOf<Ms[number]>, PublishServices<C> | PublishServicesOf<Ms[number]>>

/** The middleware of the program. */

/**
 * The middleware of the program, outermost first, with the services it needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Program {
  readonly publish: ReadonlyArray<AnyPublish>
  readonly process: ReadonlyArray<AnyProcess>
  readonly services: Context.Context<never>
}

/**
 * The middleware of the program, which the layers of `Rotif` read when they are built. Set it with `layer`.
 *
 * @category services
 * @since 0.1.0
 */
export const Program: Context.Reference<Program> = Context.Reference<Program>("rotif/Middleware/Program", {
  defaultValue: () => ({ publish: [], process: [], services: Context.empty() })
})

/** The field of a request in which the publisher keeps its own notes. A copy of the request by a spread has it, too. */
export const Notes: unique symbol = Symbol.for("rotif/Middleware/Notes")

/** The field of a request that names its publisher; copies have it, too. */
export const Home: unique symbol = Symbol.for("rotif/Middleware/Home")

/** The field of a channel with the middleware of its publishes. */
export const ChannelMiddleware: unique symbol = Symbol.for("rotif/Middleware/Channel")
