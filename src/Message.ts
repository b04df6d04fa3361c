/**
 * What a handler receives: the message, and the ways to settle its delivery.
 *
 * @since 0.1.0
 */
import type { DateTime, Duration } from "effect"
import { Data, Effect, Result } from "effect"
import type { BrokerError, Delivery } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import { reasonText } from "./internal/failure.ts"
import { Inspect } from "./internal/inspected.ts"
import * as Given from "./internal/optionChecks.ts"
import type { Settlement } from "./internal/settlement.ts"
import { ackSettlement, again } from "./internal/settlement.ts"
import { momentOf } from "./internal/times.ts"
import type { Consumer } from "./subscription/consumer.ts"
import type { HeldDelivery, Settled } from "./subscription/heldDelivery.ts"

/**
 * The lease of this delivery ended before it was settled: another consumer of the group has the message, or will have it.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseLost extends Data.TaggedError("LeaseLost")<{
  readonly channel: string
  readonly group: string
  readonly id: string
}> {
  override get message() {
    return `the lease of message ${this.id} on "${this.channel}" ended before group "${this.group}" settled it: ` +
      `it will be handled again; a longer lease or a handler that does not block the event loop helps`
  }
}

/**
 * What every message has, whatever its channel.
 *
 * **Details**: the first settlement counts; a second one is harmless and waits for the first. A settlement succeeds once it is
 * stored; while the backend is away it waits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Envelope {
  readonly id: string
  readonly channel: string
  readonly headers: Readonly<Record<string, string>>
  /** When it was first published, by the backend's clock. */
  readonly publishedAt: DateTime.Utc
  readonly group: string
  /** From 1. Only failures count: no crash, release or lost lease. */
  readonly attempt: number
  /** How often it was handed out to this group, from 1. */
  readonly deliveryCount: number
  /** How many consumers were lost after they had begun its handler; it is known from the second hand-out on. */
  readonly crashes: number
  /** Done: never again for this group. In a transactional subscription the success of the handler does it, and this dies. */
  readonly ack: Effect.Effect<void, LeaseLost>
  /**
   * Again, as the next attempt, at once (paced as `release` is) or after `delay`. It is not limited: `maxRetries` counts failures of the
   * handler. A delay that cannot be used (NaN, below 0, a Promise) is logged, and the message comes again in 1 second.
   */
  readonly nack: (options?: { readonly delay?: Duration.Input | undefined }) => Effect.Effect<void, LeaseLost>
  /** Never again for this group: it becomes a dead letter with this reason. */
  readonly term: (reason: string) => Effect.Effect<void, LeaseLost>
  /**
   * Given back untouched: again at once, to any consumer of the group, as the same attempt.
   *
   * Whatever asks for "at once" is paced, so that it cannot make a busy loop: after each of its first three hand-outs a message
   * comes again at once, after the fourth in 10 ms, then in 20 ms, 40 ms and so on, at most 1 second. It counts all hand-outs
   * (`deliveryCount`).
   */
  readonly release: Effect.Effect<void, LeaseLost>
  /** Starts the lease anew. It is renewed by itself while the message is held; this tells whether it still is. */
  readonly renew: Effect.Effect<void, LeaseLost | BrokerError>
}

/**
 * The message of a channel, pattern or union: for a union one member for each channel, told apart by `channel`.
 *
 * @category models
 * @since 0.1.0
 */
export type Message<S extends Channel.Source> = Channel.MessageShape<S> extends infer Shape
  ? Shape extends unknown ? Envelope & Shape : never
  : never

/**
 * What a message of a stream has in place of the settlements of `Envelope`: they fail with `E`.
 *
 * **Details**: by default `E` is never. A lease that was lost fails no settlement: another consumer of the group has the message, or will have
 * it; it is counted (`lostLeases`) and in the log. With `leaseLost: "fail"` of the stream `E` is `LeaseLost`.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamEnvelope<out E, in Error = unknown> extends Omit<Envelope, "ack" | "nack" | "term" | "release"> {
  /** Done: never again for this group. */
  readonly ack: Effect.Effect<void, E>
  /** Again, as the next attempt, at once or after `delay`. It is not limited: `maxRetries` counts what `fail` is told of. */
  readonly nack: (options?: { readonly delay?: Duration.Input | undefined }) => Effect.Effect<void, E>
  /** Never again for this group: it becomes a dead letter with this reason. */
  readonly term: (reason: string) => Effect.Effect<void, E>
  /** Given back untouched: again at once, to any consumer of the group, as the same attempt. */
  readonly release: Effect.Effect<void, E>
  /** This attempt has failed with `error`: again after a delay, or a dead letter, as `retry` and `maxRetries` of the stream say. */
  readonly fail: (error: Error) => Effect.Effect<void, E>
}

/**
 * A message of a stream, settled by whoever takes it.
 *
 * @category models
 * @since 0.1.0
 */
export type StreamMessage<S extends Channel.Source, E = never, Error = unknown> = Channel.MessageShape<S> extends
  infer Shape ? Shape extends unknown ? StreamEnvelope<E, Error> & Shape : never
  : never

/**
 * The parts of a message that a copy has anew.
 *
 * @category models
 * @since 0.1.0
 */
export interface Changes<out Payload> {
  readonly payload?: Payload
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/**
 * The delay of a `nack`. One that cannot be used is said, and must not become "at once".
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
 * What the settlements of a stream's messages come to.
 *
 * @internal
 */
export interface StreamSide {
  /** How an attempt ends that failed. */
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

  /** The same for a stream. */
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
      // It would acknowledge without what the transaction holds.
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
 * Makes the message of a delivery; `payload` is what its channel's schema made of it, which no compiler can see: hence the cast.
 *
 * @internal
 */
export const makeUnsafe = <S extends Channel.Source>(
  held: HeldDelivery,
  payload: unknown,
  group: string,
  consumer: Consumer
): Message<S> => new Live(held, payload, group, consumer) as unknown as Message<S>

/**
 * The message of a stream: `message` is `Live`, whatever its type says.
 *
 * @internal
 */
export const streamUnsafe = <S extends Channel.Source, E, Error>(
  message: Message<S>,
  side: StreamSide
): StreamMessage<S, E, Error> => (message as unknown as Live).on(side) as unknown as StreamMessage<S, E, Error>

/**
 * The same message with another payload or other headers, for a middleware to pass on. It settles the same delivery; what is stored does not
 * change.
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
