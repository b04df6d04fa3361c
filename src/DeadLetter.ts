/**
 * Dead letters as values: the letter, its filter, and the letter that a subscription is offered.
 *
 * @since 0.1.0
 */
import type { DateTime, Duration, Effect, Result } from "effect"
import { Schema } from "effect"
import type { BrokerError, Failure } from "./Broker.ts"
import type * as Channel from "./Channel.ts"
import type { Letter, PastFailure } from "./broker/deadLetters.ts"
import { momentOf } from "./internal/times.ts"
import * as Given from "./internal/optionChecks.ts"

/**
 * A message that a group gave up on, with its failure.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  /** The id of the dead letter, not of the message. */
  readonly letterId: string
  /** The group that gave up. */
  readonly group: string
  readonly channel: string
  readonly diedAt: DateTime.Utc
  /** The failure: its reason, the error's tag and message, the pretty cause. */
  readonly failure: Failure
  /** The failures it had before it was requeued, oldest first; at most the last 10. */
  readonly history: ReadonlyArray<PastFailure>
  /** The id of the message. */
  readonly id: string
  /** The payload as it is stored. */
  readonly raw: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  /** The ordering key of the message, if it has one. */
  readonly orderingKey: string | undefined
  /** When the message was first published. */
  readonly publishedAt: DateTime.Utc
  /** The last attempt, from 1. */
  readonly attempt: number
  readonly deliveryCount: number
  /** The number of consumers that were lost after they had begun its handler. */
  readonly crashes: number
  /** Set if another program wrote it and it cannot be read as a dead letter; `raw` has the stored text then. It can only be removed. */
  readonly malformed: string | undefined
}

/**
 * A filter of dead letters: those that match every given part. `{}` means all, also those that cannot be read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filter {
  /** A channel's name, a pattern (`"orders.*"`), or a source. */
  readonly channel?: string | Channel.Source | undefined
  readonly group?: string | undefined
  /** The `_tag` or name of the error. */
  readonly errorTag?: string | undefined
  readonly reason?: Failure["reason"] | ReadonlyArray<Failure["reason"]> | undefined
  /** Died at or after this time, by the clock of the backend. */
  readonly from?: DateTime.DateTime.Input | undefined
  /** Died before this time. */
  readonly to?: DateTime.DateTime.Input | undefined
}

/**
 * An option, a filter or a cursor cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidDeadLetterOption
  extends Schema.TaggedError<InvalidDeadLetterOption>()("InvalidDeadLetterOption", Given.problemFields)
{}

/**
 * The lease of an offered letter ended before it was settled: it was offered to another subscriber, or will be.
 *
 * @category errors
 * @since 0.1.0
 */
export class OfferLost extends Schema.TaggedError<OfferLost>()("OfferLost", {
  letterId: Schema.String,
  name: Schema.String
}) {
  override get message() {
    return `the lease of dead letter ${this.letterId} ended before "${this.name}" settled it: it is offered again; ` +
      `a longer lease or a handler that does not block the event loop helps`
  }
}

/**
 * A dead letter that is offered to a subscription: leased to it, until it is settled or its handler ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface Offered extends DeadLetter {
  /** The number of its offers under this name, from 1. */
  readonly offerCount: number
  /** Deletes the letter. */
  readonly ack: Effect.Effect<void, OfferLost | BrokerError>
  /** Keeps the letter; it is not offered again under this name. */
  readonly keep: Effect.Effect<void, OfferLost | BrokerError>
  /** Offers it again, at once or after `delay`. */
  readonly nack: (
    options?: { readonly delay?: Duration.Input | undefined }
  ) => Effect.Effect<void, OfferLost | BrokerError>
  /** Sends the message back to the group that failed. Returns whether this call did it. */
  readonly requeue: Effect.Effect<boolean, OfferLost | BrokerError>
  /** Completes when the offer has been settled. */
  readonly settled: Effect.Effect<void>
}

/**
 * A dead letter of a known source, with its payload; a `Failure` if the payload does not fit the schema, as in a letter with reason
 * `decode`.
 *
 * @category models
 * @since 0.1.0
 */
export type OfferedOf<S extends Channel.Source> = Channel.MessageShape<S> extends infer Shape
  ? Shape extends { readonly channel: infer Name; readonly payload: infer Payload; readonly params: infer Params }
    ? Omit<Offered, "channel" | "params"> & {
      readonly channel: Name
      readonly params: Params
      readonly payload: Result.Result<Payload, Channel.InvalidPayload>
    }
  : never
  : never

/**
 * Makes a dead letter of a letter in the store. Its id among the letters of all shards is `shard:letterId`.
 *
 * @internal
 */
export const fromLetter = (shard: number, letter: Letter): DeadLetter => ({
  letterId: `${shard}:${letter.letterId}`,
  group: letter.group,
  channel: letter.channel,
  diedAt: momentOf(letter.diedAtMillis),
  failure: letter.failure,
  history: letter.history,
  id: letter.id,
  raw: letter.payload,
  headers: letter.headers,
  params: letter.params,
  orderingKey: letter.orderingKey,
  publishedAt: momentOf(letter.publishedAtMillis),
  attempt: letter.attempt,
  deliveryCount: letter.deliveryCount,
  crashes: letter.crashes,
  malformed: letter.malformed
})
