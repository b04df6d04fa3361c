/**
 * Handling: the payload of one message is decoded, its middleware and handler run, and their outcome becomes a settlement.
 */
import { Cause, Effect, Exit, Result } from "effect"
import type { Broker, Delivery } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as Message from "../Message.ts"
import { failureOf } from "../internal/failure.ts"
import { isDone } from "../internal/immediate.ts"
import * as Given from "../internal/optionChecks.ts"
import type { HandlerOutcome, Settlement } from "../internal/settlement.ts"
import { ackSettlement, holdSettlement } from "../internal/settlement.ts"
import type * as Middleware from "../middleware/definition.ts"
import { keyOf as keyOfMessage } from "../publisher/identity.ts"
import * as Attempt from "./attempt.ts"
import type { Consumer } from "./consumer.ts"
import * as FailureVerdict from "./failureVerdict.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import type { KeyOf } from "./onceGate.ts"
import type { ExactlyOnce } from "./options.ts"
import { InvalidOnceKey } from "./options.ts"

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
>({ broker, source, ...wanted }: Attempt.Wanted<S, E, R, Ms, Transactional> & {
  readonly broker: Broker["Service"]
  readonly source: S
}) => {
  const { options, settings } = wanted
  const { isManual, isTransactional, pattern, retryMillis } = settings
  const { group } = settings.membership
  const decoderFor = Channel.decoderFor(source)
  const settled = Effect.succeed<HandlerOutcome>(isManual ? holdSettlement : ackSettlement)
  const attempt = Attempt.make(wanted)

  const verdictOf = FailureVerdict.make<E | Middleware.ProcessErrors<Ms>, Message.Message<S>>({
    name: `"${pattern}" for group "${group}"`,
    policy: settings.policy,
    fallback: settings.defaultPolicy,
    isUnknown: attempt.isUnknown,
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

  const handle = (
    held: HeldDelivery,
    consumer: Consumer
  ): Effect.Effect<HandlerOutcome, never, Attempt.Needs<S, R, Ms, Transactional>> => {
    const run = (message: Message.Message<S>) =>
      Effect.matchCauseEffect(attempt.run(held, consumer, message), {
        onFailure: (cause: Cause.Cause<unknown>) => failed(message, held.delivery, consumer, cause),
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
    const keyed = (message: Message.Message<S>): Effect.Effect<string | Settlement> => {
      held.prepared = message
      const made = Result.try({
        try: () => Given.key("what exactlyOnce.key gives", key(message), 512),
        catch: (error) => Cause.die(error)
      })
      if (Result.isFailure(made)) return failed(message, held.delivery, consumer, made.failure)
      return Result.isSuccess(made.success)
        ? Effect.succeed(made.success.success)
        : failed(
          message,
          held.delivery,
          consumer,
          Cause.fail(new InvalidOnceKey({ message: made.success.failure.message }))
        )
    }
    const message = decoded(held, consumer)
    if (isDone(message)) return keyed(message.value)
    // No handler runs yet, so that no one would notice a schema that hangs, and other messages wait for this key.
    return Effect.matchCauseEffect(Given.prompt("the schema", message), {
      onFailure: (cause) => Effect.succeed(undecodable(cause)),
      onSuccess: keyed
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
