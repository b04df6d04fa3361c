/**
 * Messages: a handler receives a message with its payload, and with the operations that settle its delivery.
 *
 * @since 0.1.0
 */
import type { DateTime, Duration } from "effect"
import { Effect, Result, Schema } from "effect"
import type { BrokerError, Delivery } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import { reasonText } from "./internal/failure.ts"
import { fenceOf } from "./broker/position.ts"
import { Inspect } from "./internal/inspected.ts"
import * as Given from "./internal/optionChecks.ts"
import type { Settlement } from "./internal/settlement.ts"
import { ackSettlement, again } from "./internal/settlement.ts"
import { momentOf } from "./internal/times.ts"
import type { Consumer } from "./subscription/consumer.ts"
import type { HeldDelivery, Settled } from "./subscription/heldDelivery.ts"

/**
 * The lease of a delivery ended before it was settled: another consumer of the group has the message, or will have it.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", {
  channel: Schema.String,
  group: Schema.String,
  id: Schema.String
}) {
  override get message() {
    return `the lease of message ${this.id} on "${this.channel}" ended before group "${this.group}" settled it: ` +
      `it will be handled again; a longer lease or a handler that does not block the event loop helps`
  }
}

/**
 * The ways to settle a message by hand. `E` is the error of a settlement whose lease was lost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settling<out E> {
  /**
   * Acknowledges the message: this group is done with it. In a transactional subscription a handler that succeeds acknowledges it, and `ack`
   * dies.
   */
  readonly ack: Effect.Effect<void, E>
  /**
   * Returns the message for its next attempt: at once (paced as `release` is) or after `delay`. It has no limit: `maxRetries` counts failures
   * of the handler (of a stream: calls of `fail`). A delay that cannot be used (NaN, below 0, a Promise) is logged, and the message comes again after 1 second.
   */
  readonly nack: (options?: { readonly delay?: Duration.Input | undefined }) => Effect.Effect<void, E>
  /** Ends the message for this group: it becomes a dead letter with this reason. */
  readonly term: (reason: string) => Effect.Effect<void, E>
  /**
   * Gives the message back untouched: it comes again at once, to any consumer of the group, as the same attempt.
   *
   * Everything that returns a message "at once" is paced, so that it cannot make a busy loop. After each of its first three hand-outs a message
   * comes again at once, after the fourth in 10 ms, then in 20 ms, 40 ms and so on, at most 1 second. All hand-outs count (`deliveryCount`).
   */
  readonly release: Effect.Effect<void, E>
}

/**
 * The part of a message that is the same for every channel.
 *
 * **Details**: the first settlement counts; a second one is harmless and waits for the first. A settlement succeeds when it is stored; while
 * the backend cannot be reached, it waits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Envelope extends Settling<LeaseLost> {
  readonly id: string
  readonly channel: string
  readonly headers: Readonly<Record<string, string>>
  /** Its ordering key, if it has one. */
  readonly orderingKey: string | undefined
  /**
   * A text that grows with every hand-out of the messages of an ordering key, compared as text: first by the place of the message, then by its
   * `deliveryCount`. A system that stores the last one and refuses a lower one is safe from a handler whose lease has ended and that does not
   * know yet. A dead letter that is requeued keeps its place, so its texts are lower than those of the messages handled since. With
   * `ordering: "none"` it does not grow along a key.
   */
  readonly fence: string
  /** When it was first published, by the backend's clock. */
  readonly publishedAt: DateTime.Utc
  readonly group: string
  /** The number of this attempt, from 1. Only failures count: no crashes, releases or lost leases. */
  readonly attempt: number
  /** How often the message was handed out to this group, from 1. */
  readonly deliveryCount: number
  /** The number of consumers that were lost after they had begun its handler. It is known from the second hand-out on. */
  readonly crashes: number
  /** Starts the lease anew. A lease is renewed automatically while the message is held; this checks that it still is. */
  readonly renew: Effect.Effect<void, LeaseLost | BrokerError>
}

/**
 * The message of a channel, pattern or union. For a union it has one member for each channel, with `channel` as the discriminator.
 *
 * @category models
 * @since 0.1.0
 */
export type Message<S extends Channel.Source> = Channel.MessageShape<S> extends infer Shape
  ? Shape extends unknown ? Envelope & Shape : never
  : never

/**
 * The part of a stream's message that is the same for every channel. Its settlements fail with `E`.
 *
 * **Details**: by default `E` is `never`, and a lost lease fails no settlement: another consumer of the group has the message, or will have it.
 * It is counted (`lostLeases`) and logged. With `leaseLost: "fail"` of the stream, `E` is `LeaseLost`.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamEnvelope<out E, in Error = unknown> extends Omit<Envelope, keyof Settling<E>>, Settling<E> {
  /** Fails the attempt with `error`: `retry` and `maxRetries` of the stream decide whether it comes again or becomes a dead letter. */
  readonly fail: (error: Error) => Effect.Effect<void, E>
}

/**
 * A message of a stream, settled by the user of the stream.
 *
 * @category models
 * @since 0.1.0
 */
export type StreamMessage<S extends Channel.Source, E = never, Error = unknown> = Channel.MessageShape<S> extends
  infer Shape ? Shape extends unknown ? StreamEnvelope<E, Error> & Shape : never
  : never

/**
 * The parts of a message that `replace` changes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changes<out Payload> {
  readonly payload?: Payload
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/**
 * Checks the delay of a `nack`. A delay that cannot be used is logged, and must not become "at once".
 *
 * @internal
 */
export const givenDelay = (
  options: { readonly delay?: Duration.Input | undefined } | undefined,
  whose: string
): Effect.Effect<number> => {
  const found = options === undefined || options === null
    ? Result.succeed(0)
    : Result.flatMap(
      Given.known("the options of nack", options, delayOnly),
      ({ delay }) => delay === undefined ? Result.succeed(0) : Given.delay("delay", delay)
    )
  return Result.isSuccess(found)
    ? Effect.succeed(found.success)
    : Effect.as(
      Effect.logWarning(
        `rotif: the nack ${whose}: ${found.failure.message}; it comes again in ${Given.safeDelayMillis} ms`
      ),
      Given.safeDelayMillis
    )
}

const delayOnly: ReadonlySet<string> = new Set(["delay"])

/**
 * How the settlements of a stream's messages end.
 *
 * @internal
 */
export interface StreamSide {
  /** The verdict on an attempt that failed. */
  readonly verdict: (message: Envelope, delivery: Delivery, error: unknown) => Effect.Effect<Settlement>
  /** The lease of a message was lost before it was settled. */
  readonly lost: (error: LeaseLost) => Effect.Effect<void, LeaseLost>
}

class Live implements Envelope {
  readonly delivery: Delivery
  readonly payload: unknown
  readonly group: string
  readonly headers: Readonly<Record<string, string>>
  readonly #held: HeldDelivery
  readonly #consumer: Consumer
  readonly #side: StreamSide | undefined

  constructor(
    held: HeldDelivery,
    payload: unknown,
    group: string,
    consumer: Consumer,
    headers: Readonly<Record<string, string>> = held.delivery.headers,
    side?: StreamSide
  ) {
    this.delivery = held.delivery
    this.payload = payload
    this.headers = headers
    this.group = group
    this.#held = held
    this.#consumer = consumer
    this.#side = side
  }

  /** A copy settles the same delivery. */
  with(changes: Changes<unknown>): Live {
    return new Live(
      this.#held,
      "payload" in changes ? changes.payload : this.payload,
      this.group,
      this.#consumer,
      changes.headers ?? this.headers,
      this.#side
    )
  }

  /** Returns the same message for a stream. */
  on(side: StreamSide): Live {
    return new Live(this.#held, this.payload, this.group, this.#consumer, this.headers, side)
  }

  get id() {
    return this.delivery.id
  }
  get channel() {
    return this.delivery.channel
  }
  get params() {
    return this.delivery.params
  }
  get orderingKey() {
    return this.delivery.orderingKey
  }
  get fence() {
    return fenceOf(this.delivery)
  }
  get publishedAt() {
    return momentOf(this.delivery.publishedAtMillis)
  }
  get attempt() {
    return this.delivery.attempt
  }
  get deliveryCount() {
    return this.delivery.deliveryCount
  }
  get crashes() {
    return this.delivery.crashes
  }

  #outcome(settled: Settled): Effect.Effect<void, LeaseLost> {
    return settled === "done"
      ? Effect.void
      : Effect.fail(new LeaseLost({ channel: this.channel, group: this.group, id: this.id }))
  }

  #settle(settlement: Settlement): Effect.Effect<void, LeaseLost> {
    return Effect.flatMap(this.#consumer.settle(this.#held, settlement), (settled) => this.#settled(settled))
  }

  #settled(settled: Settled): Effect.Effect<void, LeaseLost> {
    const outcome = this.#outcome(settled)
    return this.#side === undefined ? outcome : Effect.catchTag(outcome, "LeaseLost", this.#side.lost)
  }

  get ack() {
    return this.#held.isTransactional
      // It would acknowledge without the messages and writes of the transaction.
      ? Effect.die(new Error(`message ${this.id} is acknowledged with its transaction, when the handler succeeds`))
      : this.#settle(ackSettlement)
  }
  // Getters of functions: a handler may take them out of the message.
  get nack() {
    return (options?: { readonly delay?: Duration.Input | undefined }) =>
      Effect.flatMap(
        givenDelay(options, `of message ${this.id} on "${this.channel}" by group "${this.group}"`),
        (millis) => this.#settle(again(this.delivery, millis, undefined, this.attempt + 1))
      )
  }
  get term() {
    return (reason: string) => this.#settle({ _tag: "Bury", failure: { reason: "term", message: reasonText(reason) } })
  }
  get release() {
    return this.#settle(again(this.delivery, 0, "released"))
  }
  get fail() {
    const side = this.#side
    return side === undefined
      ? undefined
      : (error: unknown) =>
        Effect.flatMap(
          Effect.suspend(() => side.verdict(this, this.delivery, error)),
          (settlement) => this.#settle(settlement)
        )
  }
  get renew() {
    return Effect.flatMap(this.#consumer.renew(this.#held), (settled) => this.#outcome(settled))
  }
  [Inspect]() {
    const { attempt, channel, deliveryCount, group, headers, id, params, payload, publishedAt } = this
    return { id, channel, group, payload, params, headers, publishedAt, attempt, deliveryCount }
  }
  toJSON() {
    return { id: this.id, channel: this.channel, group: this.group, attempt: this.attempt, payload: this.payload }
  }
}

/**
 * Makes the message of a delivery. `payload` was decoded by the schema of its channel, which the compiler cannot see: hence the cast.
 *
 * @internal
 */
export const makeUnsafe = <S extends Channel.Source>(
  held: HeldDelivery,
  payload: unknown,
  group: string,
  consumer: Consumer
): Message<S> =>
  // The schema of the source made the payload; `Live` knows no schema.
  new Live(held, payload, group, consumer) as unknown as Message<S>

/**
 * Makes the message of a stream. `message` is a `Live`, whatever its type says.
 *
 * @internal
 */
export const streamUnsafe = <S extends Channel.Source, E, Error>(
  message: Message<S>,
  side: StreamSide
): StreamMessage<S, E, Error> =>
  // Every message of a subscription is a `Live`; the types of payload and errors are those of its source and policy.
  (message as unknown as Live).on(side) as unknown as StreamMessage<S, E, Error>

/**
 * Copies a message with another payload or other headers, for a middleware to pass on. The copy settles the same delivery. The stored message
 * does not change.
 *
 * @category operations
 * @since 0.1.0
 */
export const replace = <M extends Envelope & { readonly payload: unknown }>(
  message: M,
  changes: Changes<M["payload"]>
): M =>
  // `M` is `Live` there, with whatever payload: `Changes` has the type of it.
  message instanceof Live ? message.with(changes) as unknown as M : { ...message, ...changes }
