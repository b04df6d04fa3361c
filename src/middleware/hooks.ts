import { Cause, Effect } from "effect"
import type { AnyMessage, Process, Publish, PublishRequest } from "../Middleware.ts"
import type { Receipt } from "../Publisher.ts"

/**
 * What failed, for `onError`.
 *
 * @category models
 * @since 0.1.0
 */
export type HookFailure =
  | { readonly operation: "publish"; readonly request: PublishRequest; readonly cause: Cause.Cause<unknown> }
  | { readonly operation: "process"; readonly message: AnyMessage; readonly cause: Cause.Cause<unknown> }

/** What a hook returns: an effect that is run, or nothing. */
type Hooked<E, R> = Effect.Effect<unknown, E, R> | void

/**
 * @category models
 * @since 0.1.0
 */
export interface Hooks<E1, R1, E2, R2, R3, R4, R5> {
  /** Before a message is published. When it fails the publish is refused with its error. */
  readonly beforePublish?: ((request: PublishRequest) => Hooked<E1, R1>) | undefined
  /** After it was stored, scheduled, or found to be a duplicate. */
  readonly afterPublish?: ((receipt: Receipt, request: PublishRequest) => Hooked<unknown, R3>) | undefined
  /** Before the handler. When it fails the handler is not run, and its error counts as the handler's. */
  readonly beforeProcess?: ((message: AnyMessage) => Hooked<E2, R2>) | undefined
  /** After the handler succeeded. */
  readonly afterProcess?: ((message: AnyMessage) => Hooked<unknown, R4>) | undefined
  /** After a publish or an attempt failed, also because of a `before…`; not when it was interrupted. */
  readonly onError?: ((failure: HookFailure) => Hooked<unknown, R5>) | undefined
}

const run = <A, E, R>(hook: ((argument: A) => Hooked<E, R>) | undefined, argument: A): Effect.Effect<unknown, E, R> =>
  hook === undefined ? Effect.void : Effect.suspend(() => {
    const effect = hook(argument)
    return Effect.isEffect(effect) ? effect : Effect.void
  })

/** Runs what must not change the outcome: its failure is reported and forgotten; only interruption passes. */
const report = <R>(name: string, effect: Effect.Effect<unknown, unknown, R>): Effect.Effect<void, never, R> =>
  Effect.matchCauseEffect(effect, {
    onSuccess: () => Effect.void,
    onFailure: (cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.logError(`rotif: the hook ${name} failed, which changes nothing else`, Cause.pretty(cause))
  })

/**
 * Runs code at fixed points, without wrapping anything. A hook returns an effect, which is waited for, or nothing.
 *
 * **Details**: a failing `beforePublish` refuses the publish with its error; a failing `beforeProcess` counts as a failure of the handler;
 * a failing `afterPublish`, `afterProcess` or `onError` is logged and changes nothing else.
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
  E1 = never,
  R1 = never,
  E2 = never,
  R2 = never,
  R3 = never,
  R4 = never,
  R5 = never
>(hooks: Hooks<E1, R1, E2, R2, R3, R4, R5>): Publish<E1, R1 | R3 | R5> & Process<E2, R2 | R4 | R5> => {
  const { afterProcess, afterPublish, onError } = hooks
  const failed = (failure: HookFailure): Effect.Effect<void, never, R5> =>
    onError === undefined || Cause.hasInterruptsOnly(failure.cause)
      ? Effect.void
      : report("onError", run(onError, failure))
  return {
    publish: (next) => (request) =>
      run(hooks.beforePublish, request).pipe(
        Effect.andThen(next(request)),
        Effect.tapCause((cause) => failed({ operation: "publish", request, cause })),
        Effect.tap((receipt) =>
          report("afterPublish", run(afterPublish && ((receipt: Receipt) => afterPublish(receipt, request)), receipt))
        )
      ),
    process: (next) => (message) =>
      run(hooks.beforeProcess, message).pipe(
        Effect.andThen(next(message)),
        Effect.tapCause((cause) => failed({ operation: "process", message, cause })),
        Effect.tap(() => report("afterProcess", run(afterProcess, message)))
      )
  }
}
