/** Chains of middleware at run time: their composition, and the border between program and subscription. */
import { Cause, Context, Effect, Exit } from "effect"
import type * as Channel from "../Channel.ts"
import * as Given from "../internal/optionChecks.ts"
import type { Receipt } from "../publisher/outcome.ts"
import type {
  AnyMessage,
  AnyProcess,
  AnyPublish,
  OnPublish,
  Process,
  ProcessNext,
  ProcessWrap,
  Program,
  Publish,
  PublishNext,
  PublishRequest,
  PublishWrap
} from "./definition.ts"
import { ChannelMiddleware } from "./definition.ts"

/** The middleware around publishes to this channel, if it has any. */
export const publishOf = (channel: Channel.Any): AnyPublish | undefined =>
  (channel as Channel.Any & Partial<OnPublish<object, unknown>>)[ChannelMiddleware]

/**
 * The property of a middleware that only observes, and never fails or waits: how it enters and leaves a publish. A batch through only such
 * middleware needs no fiber for each message, which would cost as much as the message.
 */
export const Around: unique symbol = Symbol.for("rotif/Middleware/Around")

export interface Entered {
  /** Returns the request for the rest of the chain. */
  readonly request: PublishRequest
  /** Called once, with the outcome of the publish. */
  readonly leave: (exit: Exit.Exit<Receipt, unknown>) => void
}

export type Enter = (request: PublishRequest) => Effect.Effect<Entered>

/** The observers of a publish, outermost first; `undefined` if one of the middleware does more than observe. */
export const entersOf = (middleware: ReadonlyArray<AnyPublish>): ReadonlyArray<Enter> | undefined => {
  const enters = middleware.map((one) => (one as AnyPublish & { readonly [Around]?: Enter })[Around])
  return enters.every((enter) => enter !== undefined) ? enters : undefined
}

/** A message of a batch on its way to the handler. */
export interface Entry {
  /** The place of the message in its batch: the same for all copies that middleware passes on. */
  readonly place: object
  readonly message: AnyMessage
}

/** The rest of the handling of a batch: an outcome for each entry. The caller's types have its services. */
export type BatchNext = (entries: ReadonlyArray<Entry>) => Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>>

/** The property of a middleware that goes around a batch at once. */
export const AroundBatch: unique symbol = Symbol.for("rotif/Middleware/AroundBatch")

export type BatchWrap = (next: BatchNext) => BatchNext

/** Middleware of both sides, with its types, which are not in the value. */
export const sides = <E1, R1, E2, R2>(
  wraps: {
    readonly publish: PublishWrap<E1, R1>
    readonly process: ProcessWrap<E2, R2>
    readonly [Around]?: Enter
    readonly [AroundBatch]?: BatchWrap
  }
) => wraps as unknown as Publish<E1, R1> & Process<E2, R2>

/** Middleware of one side, likewise. */
export const processSide = <E, R>(process: ProcessWrap<E, R>) => ({ process }) as unknown as Process<E, R>

/** Composes a chain; the first is the outermost. The caller's types have its services and errors. */
export const composePublish = (middleware: ReadonlyArray<AnyPublish>, last: PublishNext): PublishNext =>
  middleware.reduceRight<PublishNext>((next, { publish }) => {
    const wrapped = publish(next) as PublishNext
    return (request) => Given.effect(`a middleware of publishes to "${request.channel.name}"`, () => wrapped(request))
  }, last)

export const composeProcess = (middleware: ReadonlyArray<AnyProcess>, last: ProcessNext): ProcessNext =>
  middleware.reduceRight<ProcessNext>((next, { process }) => {
    const wrapped = process(next) as ProcessNext
    return (message) => Given.effect(`a middleware of messages of "${message.channel}"`, () => wrapped(message))
  }, last)

const isSide = (side: "publish" | "process") => (value: unknown): boolean =>
  typeof value === "object" && value !== null &&
  typeof (value as { readonly [key: string]: unknown })[side] === "function"

export const isPublish = isSide("publish")
export const isProcess = isSide("process")

/** Completes a context by the services of the program's middleware; services of `context` win. */
export const complete = <R>(program: Program, context: Context.Context<R>): Context.Context<R> =>
  Context.merge(program.services, context) as Context.Context<R>

/**
 * Tells errors from inside of a chain from errors of the chain itself. Only those from inside have types that their receiver knows.
 */
export const makeBorder = () => {
  const inner = new WeakSet<object>()
  return {
    /** Marks the errors from inside. */
    mark: <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.onExitPrimitive(effect, (exit) => {
        if (Exit.isSuccess(exit)) return undefined
        for (const reason of exit.cause.reasons) {
          if (Cause.isFailReason(reason) && typeof reason.error === "object" && reason.error !== null) {
            inner.add(reason.error)
          }
        }
        return undefined
      }, true),
    isForeign: (error: unknown): boolean => typeof error === "object" && error !== null && !inner.has(error)
  }
}
