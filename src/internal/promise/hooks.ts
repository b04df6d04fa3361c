/**
 * The hooks of the Promise API: code of the user at fixed points of a publish and of handling a message.
 */
import { Cause, Effect } from "effect"
import type { RotifMessage } from "./message.ts"
import type { Payload, PublishOptions } from "./options.ts"

/**
 * Code that runs around publishing and handling; each hook may return a Promise, which is waited for.
 *
 * **Details**: a `beforePublish` that throws refuses the publish with its error; a `beforeProcess` that throws counts as a failure of the
 * handler. What the others throw is logged and changes nothing else.
 *
 * @category models
 * @since 0.1.0
 */
export interface Middleware {
  /** It may change an object that is published. */
  readonly beforePublish?: ((channel: string, payload: Payload, options?: PublishOptions) => unknown) | undefined
  /** `result` is what `publish` returns. */
  readonly afterPublish?:
    | ((channel: string, payload: Payload, result: string, options?: PublishOptions) => unknown)
    | undefined
  readonly beforeProcess?: ((message: RotifMessage) => unknown) | undefined
  /** After the handler has succeeded. */
  readonly afterProcess?: ((message: RotifMessage) => unknown) | undefined
  /** After each attempt that failed, with what it failed with. */
  readonly onError?: ((message: RotifMessage, error: Error) => unknown) | undefined
}

type Hook = keyof Middleware
type Arguments<H extends Hook> = Parameters<NonNullable<Middleware[H]>>

const call = <H extends Hook>(middleware: Middleware, hook: H, args: Arguments<H>): Effect.Effect<unknown, unknown> => {
  const code = middleware[hook] as ((...args: Arguments<H>) => unknown) | undefined
  return code === undefined
    ? Effect.void
    : Effect.tryPromise({ try: () => Promise.resolve(code.apply(middleware, args)), catch: (error) => error })
}

/** One after the other, until one throws. */
export const before = <H extends "beforePublish" | "beforeProcess">(
  all: ReadonlyArray<Middleware>,
  hook: H,
  ...args: Arguments<H>
): Effect.Effect<void, unknown> =>
  all.length === 0
    ? Effect.void
    : Effect.forEach(all, (middleware) => call(middleware, hook, args), { discard: true })

/** One after the other; none keeps the others from running. */
export const after = <H extends "afterPublish" | "afterProcess" | "onError">(
  all: ReadonlyArray<Middleware>,
  hook: H,
  ...args: Arguments<H>
): Effect.Effect<void> => {
  const one = (middleware: Middleware) =>
    Effect.catchCause(call(middleware, hook, args), (cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.interrupt
        : Effect.logError(`rotif: the hook ${hook} failed, which changes nothing else`, Cause.pretty(cause)))
  return all.length === 0 ? Effect.void : Effect.forEach(all, one, { discard: true })
}
