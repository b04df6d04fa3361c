/**
 * The hooks of the Promise API: user code at fixed points of publishing and of handling a message.
 */
import { Cause, Effect } from "effect"
import { AsyncLocalStorage } from "node:async_hooks"
import { pretty } from "../internal/failure.ts"
import * as Reports from "../internal/reports.ts"
import type { Payload, RotifMessage } from "./message.ts"
import { done } from "./message.ts"
import type { PublishOptions } from "./options.ts"

/**
 * Code that runs around publishing and handling; each hook may return a Promise, which is waited for.
 *
 * **Details**: a `beforePublish` that throws refuses the publish with its error; a `beforeProcess` that throws counts as a failure of the
 * handler. An error of any other hook is logged and changes nothing else. A message that a hook around publishing publishes by the same manager goes
 * through no hooks around publishing.
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

/**
 * The managers in whose hooks around publishing this code runs. A message that such a hook publishes goes through no hooks of that manager,
 * or it would never end. Hooks of other managers run.
 */
const inHook = new AsyncLocalStorage<ReadonlyArray<ReadonlyArray<Middleware>>>()

/**
 * The hooks around the current publish.
 *
 * @internal
 */
export const aroundPublish = (all: ReadonlyArray<Middleware>): ReadonlyArray<Middleware> =>
  inHook.getStore()?.includes(all) === true ? [] : all

/**
 * Runs code of a subscription outside of all hooks, even if the subscription was made, or resumed, in one.
 *
 * @internal
 */
export const outside = <A>(code: () => A): A => inHook.run([], code)

type Hook = keyof Middleware
type Arguments<H extends Hook> = Parameters<NonNullable<Middleware[H]>>

const call = <H extends Hook>(
  all: ReadonlyArray<Middleware>,
  middleware: Middleware,
  hook: H,
  args: Arguments<H>
): Effect.Effect<unknown, unknown> => {
  const code = middleware[hook] as ((...args: Arguments<H>) => unknown) | undefined
  if (code === undefined) return Effect.void
  const run = async () => done(`the hook ${hook}`, await code.apply(middleware, args))
  return Effect.tryPromise({
    try: hook === "beforePublish" || hook === "afterPublish"
      ? () => inHook.run([...inHook.getStore() ?? [], all], run)
      : () => outside(run),
    catch: (error) => error
  })
}

/** Counts the failures of each hook; rounds 1, 2, 4, 8, … are logged. */
const failures = new WeakMap<Middleware, Map<Hook, Reports.Repeating>>()

const failuresOf = (middleware: Middleware, hook: Hook): Reports.Repeating => {
  const all = failures.get(middleware) ?? new Map<Hook, Reports.Repeating>()
  failures.set(middleware, all)
  const found = all.get(hook) ??
    Reports.makeRepeating((round, cause) =>
      Effect.logError(
        `rotif: the hook ${hook} failed (${Reports.times(round)}), which changes nothing else`,
        pretty(cause)
      )
    )
  all.set(hook, found)
  return found
}

/**
 * One after the other, until one throws.
 *
 * @internal
 */
export const before = <H extends "beforePublish" | "beforeProcess">(
  all: ReadonlyArray<Middleware>,
  hook: H,
  ...args: Arguments<H>
): Effect.Effect<void, unknown> =>
  all.length === 0
    ? Effect.void
    : Effect.forEach(all, (middleware) => call(all, middleware, hook, args), { discard: true })

/**
 * One after the other; an error of one does not keep the others from running.
 *
 * @internal
 */
export const after = <H extends "afterPublish" | "afterProcess" | "onError">(
  all: ReadonlyArray<Middleware>,
  hook: H,
  ...args: Arguments<H>
): Effect.Effect<void> => {
  const one = (middleware: Middleware) =>
    Effect.matchCauseEffect(call(all, middleware, hook, args), {
      onSuccess: () => Effect.sync(() => failures.get(middleware)?.get(hook)?.succeeded()),
      onFailure: (cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failuresOf(middleware, hook).failed(cause)
    })
  return all.length === 0 ? Effect.void : Effect.forEach(all, one, { discard: true })
}
