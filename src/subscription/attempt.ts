/** One attempt: the middleware and the handler run, and what a transaction has collected is applied. */
import { Cause, Effect, Scope } from "effect"
import { CommitRefused } from "../Broker.ts"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import * as Transaction from "../Transaction.ts"
import * as Given from "../internal/optionChecks.ts"
import type { HandlerOutcome } from "../internal/settlement.ts"
import { ackSettlement, holdSettlement } from "../internal/settlement.ts"
import * as Chain from "../middleware/composition.ts"
import type * as Middleware from "../middleware/definition.ts"
import type { Consumer } from "./consumer.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import type { HandlerServices, Options } from "./options.ts"
import { InvalidOnceKey } from "./options.ts"
import type { Settings } from "./settings.ts"

/** Errors that are not the handler's: no policy knows them. */
type OwnError = Cause.TimeoutError | CommitRefused | InvalidOnceKey

const isOwn = (error: unknown): error is CommitRefused | InvalidOnceKey =>
  error instanceof CommitRefused || error instanceof InvalidOnceKey

/** The errors of an attempt. The services that the chain provides to the handler are not needed here; its errors count as errors of the handler. */
type Failed<E, Ms extends ReadonlyArray<Middleware.AnyProcess>> = E | Middleware.ProcessErrors<Ms> | OwnError

export type Needs<
  S extends Channel.Source,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
> = HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional> | Channel.DecodingServices<S>

export interface Wanted<
  S extends Channel.Source,
  E,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
> {
  readonly options: Options<S, E, R, Ms, Transactional>
  /** The middleware of the program. */
  readonly program: Middleware.Program
  readonly settings: Settings<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>
}

export const make = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
>({ options, program, settings }: Wanted<S, E, R, Ms, Transactional>) => {
  type Tried<A> = Effect.Effect<A, Failed<E, Ms>, Needs<S, R, Ms, Transactional>>
  const { isTransactional, pattern, timeoutMillis } = settings
  const innerErrors = program.process.length === 0 ? undefined : Chain.makeBorder()
  const tooLong = new Cause.TimeoutError(`an attempt took longer than ${timeoutMillis} ms`)

  const handlerName = `the handler of ${JSON.stringify(pattern)}`
  const once = (message: Message.Message<S>): Effect.Effect<unknown, E | Cause.TimeoutError, R> => {
    const running = Given.effect(handlerName, () => options.handler(message))
    return timeoutMillis === 0
      ? running
      : Effect.timeoutOrElse(running, { duration: timeoutMillis, orElse: () => Effect.fail(tooLong) })
  }

  // The chain is typed for any message; only the options have the types of its errors and services. `attempt` restores them.
  const own = Chain.composeProcess(options.middleware ?? [], once as unknown as Middleware.ProcessNext)
  const chained = (innerErrors === undefined
    ? own
    : Chain.composeProcess(program.process, (message) => innerErrors.mark(own(message)))) as unknown as (
      message: Message.Message<S>
    ) => Tried<unknown>

  /** Runs one attempt, and closes its scope before anything is settled. */
  const attempt = (held: HeldDelivery, message: Message.Message<S>): Tried<unknown> =>
    Effect.onExitPrimitive(chained(message), (exit) => Scope.closeUnsafe(held.scope, exit))

  /** Runs the handler with a transaction, and applies it. */
  const transact = (
    held: HeldDelivery,
    consumer: Consumer,
    message: Message.Message<S>
  ): Tried<HandlerOutcome> =>
    Effect.suspend(() => {
      held.isTransactional = true
      const transaction = Transaction.makeUnsafe(held.delivery.channel)
      return attempt(held, message).pipe(
        Effect.provideService(Transaction.Transaction, transaction),
        Effect.ensuring(Effect.sync(transaction.close)),
        Effect.flatMap((): Effect.Effect<HandlerOutcome, CommitRefused> => {
          const { messages, writes } = transaction
          if (messages.length === 0 && writes.length === 0) return Effect.succeed(ackSettlement)
          return Effect.flatMap(
            consumer.commit(held, { messages, writes }),
            // In both cases the delivery has left this process by now.
            (outcome) => typeof outcome === "string" ? Effect.succeed(holdSettlement) : Effect.fail(outcome)
          )
        })
      ) as Tried<HandlerOutcome>
    })

  return {
    /** Runs an attempt. It gives the outcome of a transactional subscription; without a transaction its value means nothing. */
    run: (held: HeldDelivery, consumer: Consumer, message: Message.Message<S>): Tried<unknown> =>
      isTransactional ? transact(held, consumer, message) : attempt(held, message),
    /**
     * Whether no policy knows an error. A handler's own TimeoutError is one of its errors; only this very one is not. The policy does not know
     * the errors of the program's middleware either.
     */
    isUnknown: (error: unknown): boolean => error === tooLong || isOwn(error) || innerErrors?.isForeign(error) === true
  }
}
