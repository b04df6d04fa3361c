/**
 * What is made of a delivery, for a handler of one message or of a batch: its message, its key for `exactlyOnce`, and the verdict on a failure.
 */
import { Cause, Effect, Exit, Result } from "effect"
import type { Broker, Delivery } from "../Broker.ts"
import { CommitRefused } from "../Broker.ts"
import * as Channel from "../Channel.ts"
import * as Message from "../Message.ts"
import { failureOf } from "../internal/failure.ts"
import { isDone } from "../internal/immediate.ts"
import * as Given from "../internal/optionChecks.ts"
import type { Settlement } from "../internal/settlement.ts"
import * as Chain from "../middleware/composition.ts"
import type * as Middleware from "../middleware/definition.ts"
import { keyOf as keyOfMessage } from "../publisher/identity.ts"
import type { Consumer } from "./consumer.ts"
import * as FailureVerdict from "./failureVerdict.ts"
import type { HeldDelivery } from "./heldDelivery.ts"
import type { KeyOf } from "./onceGate.ts"
import type { AttemptOptions, ExactlyOnce, HandlerServices } from "./options.ts"
import { InvalidOnceKey } from "./options.ts"
import type { Settings } from "./settings.ts"

/** Errors that are not the handler's: no policy knows them. */
export type OwnError = Cause.TimeoutError | CommitRefused | InvalidOnceKey

const isOwn = (error: unknown): error is CommitRefused | InvalidOnceKey =>
  error instanceof CommitRefused || error instanceof InvalidOnceKey

/** The services that handling needs. */
export type Needs<
  S extends Channel.Source,
  R,
  Ms extends ReadonlyArray<Middleware.AnyProcess>,
  Transactional extends boolean
> = HandlerServices<Middleware.ProcessServices<Ms, R>, Transactional> | Channel.DecodingServices<S>

/** The end of a message whose payload does not decode. */
export const undecodable = (cause: Cause.Cause<unknown>): Settlement => ({
  _tag: "Bury",
  failure: failureOf("decode", cause)
})

export interface Wanted<S extends Channel.Source, E> {
  readonly broker: Broker["Service"]
  readonly exactlyOnce: AttemptOptions<S, never>["exactlyOnce"]
  /** The middleware of the program. */
  readonly program: Middleware.Program
  readonly settings: Settings<E, Message.Message<S>>
  readonly source: S
}

export const make = <S extends Channel.Source, E>(
  { broker, exactlyOnce, program, settings, source }: Wanted<S, E>
) => {
  const { pattern, timeoutMillis } = settings
  const { group } = settings.membership
  const decoderFor = Channel.decoderFor(source)
  const innerErrors = program.process.length === 0 ? undefined : Chain.makeBorder()
  const tooLong = new Cause.TimeoutError(`an attempt took longer than ${timeoutMillis} ms`)

  const verdictOf = FailureVerdict.make<E, Message.Message<S>>({
    name: `"${pattern}" for group "${group}"`,
    policy: settings.policy,
    fallback: settings.defaultPolicy,
    // A handler's own TimeoutError is one of its errors; only this very one is not. The policy does not know the errors of the program's
    // middleware either.
    isUnknown: (error) => error === tooLong || isOwn(error) || innerErrors?.isForeign(error) === true,
    maxRetries: settings.maxRetries,
    isLimited: settings.isLimited,
    retryMillis: settings.retryMillis,
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

  /** Runs a handler, at most for `timeout`. */
  const timed = <A, E2, R>(handler: () => Effect.Effect<A, E2, R>): Effect.Effect<A, E2 | Cause.TimeoutError, R> => {
    const running = Given.effect(handlerName, handler)
    return timeoutMillis === 0
      ? running
      : Effect.timeoutOrElse(running, { duration: timeoutMillis, orElse: () => Effect.fail(tooLong) })
  }

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

  const { key } = typeof exactlyOnce === "object" ? exactlyOnce : {} as ExactlyOnce<S>

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

  return {
    /** Tells the errors of the subscription from those of the program's middleware, if there is any. */
    innerErrors,
    failed,
    timed,
    decoded,
    /** The message that was decoded to find its key. */
    preparedOf: (held: HeldDelivery) => held.prepared as Message.Message<S> | undefined,
    keyOf: settings.isOnce ? keyOf : undefined
  }
}

export type Received<S extends Channel.Source, E> = ReturnType<typeof make<S, E>>
