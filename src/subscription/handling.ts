/**
 * Handling: the payload of one message is decoded, its middleware and handler run, and their outcome becomes a settlement.
 */
import { Cause, Effect, Exit, Result, Scope } from "effect"
import type { Broker, Delivery } from "../Broker.ts"
import { CommitRefused } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as Message from "../Message.ts"
import * as Transaction from "../Transaction.ts"
import { failureOf } from "../internal/failure.ts"
import { isDone } from "../internal/immediate.ts"
import * as Given from "../internal/optionChecks.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { ackSettlement, holdSettlement } from "../internal/settlement.ts"
import * as Chain from "../middleware/composition.ts"
import type * as Middleware from "../middleware/definition.ts"
import { keyOf as keyOfMessage } from "../publisher/identity.ts"
import type { Consumer } from "./consumer.ts"
import * as FailureVerdict from "./failureVerdict.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import type { KeyOf } from "./onceGate.ts"
import type { ExactlyOnce, HandlerServices, Options } from "./options.ts"
import { InvalidOnceKey } from "./options.ts"
import type { Settings } from "./settings.ts"

/** Errors that are not the handler's: no policy knows them. */
type OwnError = Cause.TimeoutError | CommitRefused | InvalidOnceKey

const isOwn = (error: unknown): error is CommitRefused | InvalidOnceKey =>
  error instanceof CommitRefused || error instanceof InvalidOnceKey

const undecodable = (cause: Cause.Cause<unknown>): Settlement => ({
  _tag: "Bury",
  failure: failureOf("decode", cause)
})

export const make = <
  S extends Channel.Source,
  E,
  R,
  const Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
>({ broker, options, program, settings, source }: {
  readonly broker: Broker["Service"]
  readonly options: Options<S, E, R, Ms, Transactional>
  /** The middleware of the program. */
  readonly program: Middleware.Program
  readonly settings: Settings<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>
  readonly source: S
}) => {
  // The services that the chain provides to the handler are not needed here; its errors count as errors of the handler.
  type Failed = E | Middleware.ProcessErrors<Ms> | OwnError
  type Needs = HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional> | Channel.DecodingServices<S>

  const { isManual, isTransactional, pattern, retryMillis, timeoutMillis } = settings
  const { group } = settings.membership
  const decoderFor = Channel.decoderFor(source)
  const settled = Effect.succeed<HandlerOutcome>(isManual ? holdSettlement : ackSettlement)
  const innerErrors = program.process.length === 0 ? undefined : Chain.makeBorder()
  const tooLong = new Cause.TimeoutError(`an attempt took longer than ${timeoutMillis} ms`)

  const verdictOf = FailureVerdict.make<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>({
    name: `"${pattern}" for group "${group}"`,
    policy: settings.policy,
    fallback: settings.defaultPolicy,
    // A handler's own TimeoutError is one of its errors; only this very one is not. The policy does not know the errors of the program's
    // middleware either.
    isUnknown: (error) => error === tooLong || isOwn(error) || innerErrors?.isForeign(error) === true,
    maxRetries: settings.maxRetries,
    isLimited: settings.isLimited,
    retryMillis,
    nowMillis: (channel) => broker.recurring.nowMillis(broker.shardsOf({ _tag: "Channels", names: [channel] })[0] ?? 0)
  })

  /** The verdict on an attempt that failed. */
  const failed = (
    message: Message.Message<S>,
    delivery: Delivery,
    consumer: Consumer,
    cause: Cause.Cause<unknown>
  ): Effect.Effect<Settlement> =>
    verdictOf(message, delivery, cause, () => {
      consumer.counts.failed++
    })

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
    ) => Effect.Effect<unknown, Failed, Needs>

  /** Runs one attempt, and closes its scope before anything is settled. */
  const attempt = (held: HeldDelivery, message: Message.Message<S>): Effect.Effect<unknown, Failed, Needs> =>
    Effect.onExitPrimitive(chained(message), (exit) => Scope.closeUnsafe(held.scope, exit))

  /** Runs the handler with a transaction, and applies it. */
  const transact = (
    held: HeldDelivery,
    consumer: Consumer,
    message: Message.Message<S>
  ): Effect.Effect<HandlerOutcome, Failed, Needs> =>
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
      ) as Effect.Effect<HandlerOutcome, Failed, Needs>
    })

  /** Decodes a message. It is an `Exit` if the schema decodes at once. */
  const decoded = (
    held: HeldDelivery,
    consumer: Consumer
  ): Effect.Effect<Message.Message<S>, Channel.InvalidPayload, Channel.DecodingServices<S>> => {
    const { channel, payload } = held.delivery
    const decode = decoderFor(channel)
    // The selector and the decoders come from the same source; only a broken backend hands out another channel.
    if (decode === undefined) {
      return Effect.die(new Error(`"${channel}" is not a channel of the subscription "${pattern}"`))
    }
    const value = decode(payload)
    return isDone(value)
      ? Exit.succeed(Message.makeUnsafe<S>(held, value.value, group, consumer))
      : Effect.map(value, (value) => Message.makeUnsafe<S>(held, value, group, consumer))
  }

  const handle = (held: HeldDelivery, consumer: Consumer): Effect.Effect<HandlerOutcome, never, Needs> => {
    const run = (message: Message.Message<S>) =>
      Effect.matchCauseEffect(isTransactional ? transact(held, consumer, message) : attempt(held, message), {
        onFailure: (cause: Cause.Cause<Failed>) => failed(message, held.delivery, consumer, cause),
        onSuccess: (outcome) => isTransactional ? Effect.succeed(outcome as HandlerOutcome) : settled
      })
    // It was decoded to find its key.
    if (held.prepared !== undefined) return run(held.prepared as Message.Message<S>)
    const message = decoded(held, consumer)
    return isDone(message) ? run(message.value) : Effect.matchCauseEffect(message, {
      onFailure: (cause) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
      onSuccess: run
    })
  }

  const { key } = typeof options.exactlyOnce === "object" ? options.exactlyOnce : {} as ExactlyOnce<S>

  const keyOf = (held: HeldDelivery, consumer: Consumer): ReturnType<KeyOf<Channel.DecodingServices<S>>> => {
    if (key === undefined) return Effect.succeed(keyOfMessage(held.delivery))
    return Effect.matchCauseEffect(decoded(held, consumer), {
      onFailure: (cause) => Effect.succeed(undecodable(cause)),
      onSuccess: (message) => {
        held.prepared = message
        return Effect.matchCauseEffect(
          Effect.suspend(() => {
            const made = Given.key("what exactlyOnce.key gives", key(message), 512)
            return Result.isSuccess(made)
              ? Effect.succeed(made.success)
              : Effect.fail(new InvalidOnceKey({ message: made.failure.message }))
          }),
          { onFailure: (cause) => failed(message, held.delivery, consumer, cause), onSuccess: Effect.succeed }
        )
      }
    })
  }

  /** The verdict on a delivery whose fiber died outside of `handle`. */
  const verdict = (held: HeldDelivery, consumer: Consumer, cause: Cause.Cause<never>) =>
    Effect.matchCauseEffect(decoded(held, consumer), {
      onFailure: (cause: Cause.Cause<unknown>) => Effect.succeed<HandlerOutcome>(undecodable(cause)),
      onSuccess: (message) => failed(message, held.delivery, consumer, cause)
    })

  return { handle, keyOf: settings.isOnce ? keyOf : undefined, verdict, failed }
}
