/**
 * Middleware: code around publishing and around handling.
 *
 * A middleware gets `next`, the rest of the chain, and returns the function that takes its place. The first one given is the outermost: it sees a
 * request or message first and the outcome last. A chain is composed once, when its publisher or subscription is built; without middleware
 * there is no chain, and it costs nothing.
 *
 * | given to | sees | its errors |
 * | --- | --- | --- |
 * | `Middleware.layer`, under `Rotif.layer` | every publish and every message of the program | of a publish: `PublishRefused`; of handling: left to the default retry policy |
 * | `Middleware.forChannel` | every publish to this channel | are errors of `publish` |
 * | `middleware` of a subscription | every message of this subscription | are errors of the handler, for its `retry` policy to decide about |
 *
 * @since 0.1.0
 */
import { Context, Effect, Layer, Tracer } from "effect"
import type * as Channel from "./Channel.ts"
import * as Given from "./internal/optionChecks.ts"
import { composePublish, isProcess, isPublish, publishOf } from "./middleware/composition.ts"
import type {
  Any,
  AnyProcess,
  AnyPublish,
  ForChannel,
  ProcessServicesOf,
  PublishNext,
  PublishServicesOf
} from "./middleware/definition.ts"
import { ChannelMiddleware, Program } from "./middleware/definition.ts"

export type {
  Any,
  AnyMessage,
  AnyProcess,
  AnyPublish,
  ForChannel,
  OnPublish,
  Process,
  ProcessErrors,
  ProcessNext,
  ProcessServices,
  ProcessWrap,
  Publish,
  PublishErrors,
  PublishFailure,
  PublishNext,
  PublishRequest,
  PublishServices,
  PublishWrap
} from "./middleware/definition.ts"
export { both, process, Program, providing, publish, withHeaders } from "./middleware/definition.ts"

export * from "./middleware/circuitBreaker.ts"
export * from "./middleware/hooks.ts"
export { InvalidMiddleware } from "./middleware/invalidMiddleware.ts"
export * from "./middleware/logging.ts"
export * from "./middleware/metrics.ts"
export * from "./middleware/rateLimit.ts"
export * from "./middleware/timeout.ts"
export * from "./middleware/tracing.ts"
export * from "./middleware/validation.ts"

/**
 * Puts middleware around each publish to a channel, and returns the channel with it. Its errors are errors of `publish`, which needs its services.
 *
 * **Details**: it is outside of middleware that the channel had before, and inside of the middleware of the program.
 *
 * @category constructors
 * @since 0.1.0
 */
export const forChannel = <C extends Channel.Any, const Ms extends ReadonlyArray<AnyPublish>>(
  channel: C,
  ...middleware: Ms
): ForChannel<C, Ms> => {
  const before = publishOf(channel)
  const all = before === undefined ? middleware : [...middleware, before]
  const around = { publish: (next: PublishNext) => composePublish(all, next) }
  // It is a `C` with one more property; the errors of the middleware are in the type alone.
  return { ...channel, [ChannelMiddleware]: around } as unknown as ForChannel<C, Ms>
}

const checkAll = (middleware: ReadonlyArray<unknown>) =>
  Effect.forEach(middleware, (one) =>
    isPublish(one) || isProcess(one)
      ? Effect.void
      : Given.orDie(
        Given.refuse("a middleware", "made by Middleware.publish, Middleware.process or another of its functions", one)
      ))

/**
 * Puts middleware around every publish and every message of a program: provide it to `Rotif.layer`.
 *
 * **Details**: the middleware of a `layer` further out is outside of this one. The middleware gets its services from the layer; for the code that
 * it wraps, a service of the same name that is already provided wins.
 *
 * **Example** (Traces and metrics for all)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Middleware, Rotif } from "rotif"
 *
 * const Messaging = Rotif.layerMemory.pipe(
 *   Layer.provide(Middleware.layer(Middleware.tracing(), Middleware.metrics()))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const Ms extends ReadonlyArray<Any>>(
  ...middleware: Ms
): Layer.Layer<never, never, PublishServicesOf<Ms[number]> | ProcessServicesOf<Ms[number]>> =>
  Layer.effect(
    Program,
    Effect.map(
      Effect.andThen(
        checkAll(middleware),
        Effect.context<PublishServicesOf<Ms[number]> | ProcessServicesOf<Ms[number]>>()
      ),
      (context): Program => {
        const outer = Context.get(context, Program)
        return {
          publish: [...outer.publish, ...middleware.filter((one): one is AnyPublish & Ms[number] => "publish" in one)],
          process: [...outer.process, ...middleware.filter((one): one is AnyProcess & Ms[number] => "process" in one)],
          // The span around the building of a layer is no parent of later spans.
          services: Context.merge(outer.services, Context.omit(Tracer.ParentSpan)(context)) as Context.Context<never>
        }
      }
    )
  )
