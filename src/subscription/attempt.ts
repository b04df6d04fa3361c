/** One attempt: the middleware and the handler run, and what a transaction has collected is applied. */
import { Effect, Scope } from "effect"
import type { CommitRefused } from "../Broker.ts"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import * as Transaction from "../Transaction.ts"
import type { HandlerOutcome } from "../internal/settlement.ts"
import { ackSettlement, holdSettlement } from "../internal/settlement.ts"
import * as Chain from "../middleware/composition.ts"
import type * as Middleware from "../middleware/definition.ts"
import type { Consumer } from "./consumer.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import type { Options } from "./options.ts"
import type { Needs, OwnError, Received } from "./received.ts"
import type { Settings } from "./settings.ts"

/** The errors of an attempt. The services that the chain provides to the handler are not needed here; its errors count as errors of the handler. */
type Failed<E, Ms extends ReadonlyArray<Middleware.AnyProcess>> = E | Middleware.ProcessErrors<Ms> | OwnError

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
>(
  { options, program, settings }: Wanted<S, E, R, Ms, Transactional>,
  { innerErrors, timed }: Pick<Received<S, E | Middleware.ProcessErrors<Ms>>, "innerErrors" | "timed">
) => {
  type Tried<A> = Effect.Effect<A, Failed<E, Ms>, Needs<S, R, Ms, Transactional>>
  const { isTransactional } = settings
  const once = (message: Message.Message<S>) => timed(() => options.handler(message))

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
            consumer.commit([held], { messages, writes }),
            // In both cases the delivery has left this process by now.
            (outcome) => typeof outcome === "string" ? Effect.succeed(holdSettlement) : Effect.fail(outcome)
          )
        })
      ) as Tried<HandlerOutcome>
    })

  /** Runs an attempt. It gives the outcome of a transactional subscription; without a transaction its value means nothing. */
  return (held: HeldDelivery, consumer: Consumer, message: Message.Message<S>): Tried<unknown> =>
    isTransactional ? transact(held, consumer, message) : attempt(held, message)
}
