import { Cause, Effect } from "effect"
import { InHook } from "../internal/activity.ts"
import { pretty } from "../internal/failure.ts"
import * as Shape from "../internal/optionShape.ts"
import * as Reports from "../internal/reports.ts"
import { calm, isPromise } from "../internal/describe.ts"
import type { Receipt } from "../publisher/outcome.ts"
import { sides } from "./composition.ts"
import type { AnyMessage, Process, Publish, PublishRequest } from "./definition.ts"
import { Home } from "./definition.ts"
import { checked, InvalidMiddleware } from "./invalidMiddleware.ts"

/**
 * The operation that failed, for `onError`.
 *
 * @category models
 * @since 0.1.0
 */
export type HookFailure =
  | { readonly operation: "publish"; readonly request: PublishRequest; readonly cause: Cause.Cause<unknown> }
  | { readonly operation: "process"; readonly message: AnyMessage; readonly cause: Cause.Cause<unknown> }

/**
 * The result of a hook: an effect, which is run, or nothing.
 *
 * @category models
 * @since 0.1.0
 */
export type Hooked = Effect.Effect<unknown, unknown, unknown> | void

/** The error and the services of a hook's result; none if it returns nothing. */
type ErrorOf<X> = X extends Effect.Effect<infer _A, infer E, infer _R> ? E : never
type ServicesOf<X> = X extends Effect.Effect<infer _A, infer _E, infer R> ? R : never

/**
 * The hooks of `hooks`, each run at one point of a publish or of the handling of a message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Hooks<
  out BeforePublish extends Hooked = void,
  out AfterPublish extends Hooked = void,
  out BeforeProcess extends Hooked = void,
  out AfterProcess extends Hooked = void,
  out OnError extends Hooked = void
> {
  /** Runs before a message is published. If it fails, the publish is refused with its error. */
  readonly beforePublish?: ((request: PublishRequest) => BeforePublish) | undefined
  /** Runs after a message was stored, scheduled, or found to be a duplicate. */
  readonly afterPublish?: ((receipt: Receipt, request: PublishRequest) => AfterPublish) | undefined
  /** Runs before the handler. If it fails, the handler is not run, and its error counts as the handler's. */
  readonly beforeProcess?: ((message: AnyMessage) => BeforeProcess) | undefined
  /** Runs after the handler has succeeded. */
  readonly afterProcess?: ((message: AnyMessage) => AfterProcess) | undefined
  /** Runs after a publish or an attempt failed, also because of a `before…` hook; not after an interruption. */
  readonly onError?: ((failure: HookFailure) => OnError) | undefined
}

const shape = Shape.shape<Hooks<Hooked, Hooked, Hooked, Hooked, Hooked>>()({
  beforePublish: Shape.func,
  afterPublish: Shape.func,
  beforeProcess: Shape.func,
  afterProcess: Shape.func,
  onError: Shape.func
})

const run = <X extends Hooked>(name: string, hook: () => X): Effect.Effect<unknown, ErrorOf<X>, ServicesOf<X>> =>
  Effect.suspend(() => {
    const effect: Hooked = hook()
    if (Effect.isEffect(effect)) return effect
    if (!isPromise(effect)) return Effect.void
    calm(effect)
    // It would not be awaited, and its failure would be lost.
    return Effect.fail(
      new InvalidMiddleware({
        option: name,
        message: `the hook ${name} must return an Effect or nothing, it returned a Promise`
      })
    )
  }) as Effect.Effect<unknown, ErrorOf<X>, ServicesOf<X>>

/** Runs a hook that must not change the outcome: its failure is logged, at rounds 1, 2, 4, 8, …; only an interruption passes. */
const makeReport = (name: string) => {
  const failures = Reports.makeRepeating((round, cause) =>
    Effect.logError(
      `rotif: the hook ${name} failed (${Reports.times(round)}), which changes nothing else`,
      pretty(cause)
    )
  )
  return <X extends Hooked>(hook: () => X): Effect.Effect<void, never, ServicesOf<X>> =>
    Effect.matchCauseEffect(run(name, hook), {
      onSuccess: () => Effect.sync(failures.succeeded),
      onFailure: (cause) => Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failures.failed(cause)
    })
}

const inHook = <A, E, R>(request: PublishRequest, effect: Effect.Effect<A, E, R>) =>
  Effect.updateService(effect, InHook, (homes) => [...homes, request[Home]])

/**
 * Runs code at fixed points, without wrapping anything. A hook returns an effect, which is waited for, or nothing.
 *
 * **Details**: a failing `beforePublish` refuses the publish with its error; a failing `beforeProcess` counts as a failure of the handler;
 * a failing `afterPublish`, `afterProcess` or `onError` is logged and changes nothing else. A message that a publishing hook publishes by the
 * same Rotif goes through no publishing hooks; what the handler of a subscription publishes does, even if a hook made the subscription.
 *
 * **Example** (Watching what goes through)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Middleware } from "rotif"
 *
 * const audit = Middleware.hooks({
 *   beforePublish: (request) => Effect.log(`publishing to ${request.channel.name}`),
 *   afterProcess: (message) => Effect.log(`handled ${message.id}`),
 *   onError: ({ operation, cause }) => Effect.logError(`${operation} failed`, cause)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const hooks = <
  BeforePublish extends Hooked = void,
  AfterPublish extends Hooked = void,
  BeforeProcess extends Hooked = void,
  AfterProcess extends Hooked = void,
  OnError extends Hooked = void
>(
  hooks: Hooks<BeforePublish, AfterPublish, BeforeProcess, AfterProcess, OnError>
):
  & Publish<
    ErrorOf<BeforePublish>,
    ServicesOf<BeforePublish> | ServicesOf<AfterPublish> | ServicesOf<OnError>
  >
  & Process<
    ErrorOf<BeforeProcess>,
    ServicesOf<BeforeProcess> | ServicesOf<AfterProcess> | ServicesOf<OnError>
  > =>
{
  checked(shape.required("hooks", hooks))
  const { afterProcess, afterPublish, beforeProcess, beforePublish, onError } = hooks
  const reportError = makeReport("onError")
  const reportPublish = makeReport("afterPublish")
  const reportProcess = makeReport("afterProcess")
  const failed = (failure: HookFailure) =>
    onError === undefined || Cause.hasInterruptsOnly(failure.cause)
      ? Effect.void
      : reportError(() => onError(failure))
  return sides<
    ErrorOf<BeforePublish>,
    ServicesOf<BeforePublish> | ServicesOf<AfterPublish> | ServicesOf<OnError>,
    ErrorOf<BeforeProcess>,
    ServicesOf<BeforeProcess> | ServicesOf<AfterProcess> | ServicesOf<OnError>
  >({
    publish: (next) => {
      const hooked = (request: PublishRequest) => {
        const published = (beforePublish === undefined
          ? next(request)
          : Effect.andThen(inHook(request, run("beforePublish", () => beforePublish(request))), next(request))).pipe(
            Effect.tapCause((cause) => inHook(request, failed({ operation: "publish", request, cause })))
          )
        return afterPublish === undefined
          ? published
          : Effect.tap(published, (receipt) => inHook(request, reportPublish(() => afterPublish(receipt, request))))
      }
      return (request) =>
        Effect.withFiber((fiber) => fiber.getRef(InHook).includes(request[Home]) ? next(request) : hooked(request))
    },
    process: (next) => (message) => {
      const processed = (beforeProcess === undefined
        ? next(message)
        : Effect.andThen(run("beforeProcess", () => beforeProcess(message)), next(message))).pipe(
          Effect.tapCause((cause) => failed({ operation: "process", message, cause }))
        )
      return afterProcess === undefined
        ? processed
        : Effect.tap(processed, () => reportProcess(() => afterProcess(message)))
    }
  })
}
