/**
 * Handling: the payload of one message is decoded, its middleware and handler run, and their outcome becomes a settlement.
 */
import type { Cause } from "effect"
import { Effect } from "effect"
import type { Broker } from "../Broker.ts"
import type * as Channel from "../Channel.ts"
import type * as Message from "../Message.ts"
import { isDone } from "../internal/immediate.ts"
import type { HandlerOutcome } from "../internal/settlement.ts"
import { ackSettlement, holdSettlement } from "../internal/settlement.ts"
import type * as Middleware from "../middleware/definition.ts"
import * as Attempt from "./attempt.ts"
import type { Consumer } from "./consumer.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import * as Received from "./received.ts"
import { undecodable } from "./received.ts"
import type { Handling } from "./singles.ts"

export const make = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
>({ broker, source, ...wanted }: Attempt.Wanted<S, E, R, Ms, Transactional> & {
  readonly broker: Broker["Service"]
  readonly source: S
}) => {
  const { options, program, settings } = wanted
  const { isManual, isTransactional } = settings
  const settled = Effect.succeed<HandlerOutcome>(isManual ? holdSettlement : ackSettlement)
  const received = Received.make({ broker, exactlyOnce: options.exactlyOnce, program, settings, source })
  const { decoded, failed, keyOf, preparedOf } = received
  const attempt = Attempt.make(wanted, received)

  const handle = (
    held: HeldDelivery,
    consumer: Consumer
  ): Effect.Effect<HandlerOutcome, never, Received.Needs<S, R, Ms, Transactional>> => {
    const run = (message: Message.Message<S>) =>
      Effect.matchCauseEffect(attempt(held, consumer, message), {
        onFailure: (cause: Cause.Cause<unknown>) => failed(message, held.delivery, consumer, cause),
        onSuccess: (outcome) => isTransactional ? Effect.succeed(outcome as HandlerOutcome) : settled
      })
    const prepared = preparedOf(held)
    if (prepared !== undefined) return run(prepared)
    const message = decoded(held, consumer)
    return isDone(message) ? run(message.value) : Effect.matchCauseEffect(message, {
      onFailure: (cause) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
      onSuccess: run
    })
  }

  /** The verdict on a delivery whose fiber died outside of `handle`. */
  const verdict = (held: HeldDelivery, consumer: Consumer, cause: Cause.Cause<never>) =>
    Effect.matchCauseEffect(decoded(held, consumer), {
      onFailure: (cause: Cause.Cause<unknown>) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
      onSuccess: (message) => failed(message, held.delivery, consumer, cause)
    })

  return {
    handling: (consumer: () => Consumer): Handling<Received.Needs<S, R, Ms, Transactional>> => ({
      _tag: "Single",
      handle: (held) => handle(held, consumer()),
      verdict: (held, cause) => verdict(held, consumer(), cause)
    }),
    keyOf,
    failed
  }
}
