/** What a publish did, and why it failed. */
import type { DateTime } from "effect"
import { Data } from "effect"
import type { BrokerError } from "../Broker.ts"
import type * as Channel from "../Channel.ts"

/**
 * What a publish did.
 *
 * - `Published`: the message is stored, at `position` in the log of its channel.
 * - `Scheduled`: it is stored and waits until `dueAt`, by the backend's clock.
 * - `Duplicate`: the message `id` was first, within the deduplication window or still waiting; nothing was added. `position` is where
 *   that one is, if it was stored in the log at once.
 *
 * @category models
 * @since 0.1.0
 */
export type Receipt =
  | { readonly _tag: "Published"; readonly id: string; readonly channel: string; readonly position: string }
  | {
    readonly _tag: "Scheduled"
    readonly id: string
    readonly channel: string
    readonly position: undefined
    readonly dueAt: DateTime.Utc
  }
  | { readonly _tag: "Duplicate"; readonly id: string; readonly channel: string; readonly position: string | undefined }

/**
 * The encoded message is larger than allowed. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends Data.TaggedError("PayloadTooLarge")<{
  readonly channel: string
  /** Size of payload and headers, in bytes. */
  readonly bytes: number
  readonly limit: number
}> {
  override get message() {
    return `a message for "${this.channel}" is ${this.bytes} bytes long, the limit is ${this.limit}: ` +
      `store large data elsewhere and publish a reference, or raise maxPayloadBytes`
  }
}

/**
 * The id, the headers or a time cannot be used. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPublishOptions extends Data.TaggedError("InvalidPublishOptions")<{
  readonly channel: string
  readonly message: string
}> {}

/**
 * The backend could not be reached in time. The message is not stored; publishing again is safe.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Data.TaggedError("Unavailable")<{
  readonly channel: string
  readonly id: string
  readonly message: string
}> {}

/**
 * The connection was lost after the message was sent, and what became of it could not be found out in time. Publish it again
 * with `{ id: error.id }` through the same `Publisher`: it is stored once in either case.
 *
 * **Details**: where `isLasting` is true, publishing it again with this id gives the same error: what would tell is gone. A plain message is
 * looked for in its log, from which it may have been removed since: by a limit of the channel, or because every group has acknowledged it
 * (`graceMillis` later). What a publish with an id, a window or a delay came to is kept for 10 minutes, and as long as its window. Whoever must
 * have it handled publishes it under another id, and it may be handled twice.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishUncertain extends Data.TaggedError("PublishUncertain")<{
  readonly channel: string
  readonly id: string
  readonly message: string
  /** Whether it will not be found out any more. */
  readonly isLasting: boolean
}> {}

/**
 * A middleware of the program (`Middleware.layer`) failed with `error`. Nothing was stored, unless it failed after it had published.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishRefused extends Data.TaggedError("PublishRefused")<{
  readonly channel: string
  /** What the middleware failed with. */
  readonly error: unknown
}> {
  override get message() {
    const why = this.error instanceof Error ? this.error.message : String(this.error)
    return `a middleware refused a message for "${this.channel}": ${why}`
  }
}

/**
 * The message is stored, as `receipt` says, and is being delivered; but the `durability` that was asked for was not reached in time: a
 * master that is lost now may take the message along.
 *
 * **Details**: to be sure, publish it again with `{ id: error.id }` through the same `Publisher`: that stores nothing as long as the
 * message is there, stores it where a new master does not have it, and waits again. Without that nothing more is to be done: replicas
 * that are only slow get the message all the same.
 *
 * @category errors
 * @since 0.1.0
 */
export class DurabilityNotReached extends Data.TaggedError("DurabilityNotReached")<{
  readonly channel: string
  readonly id: string
  /** What the publish did. */
  readonly receipt: Receipt
  /** How many replicas had the message for sure when the time was over. */
  readonly replicas: number
  readonly message: string
}> {}

/**
 * Why one message was not (surely) stored or, with `DurabilityNotReached`, is stored with less certainty than was asked for.
 *
 * @category errors
 * @since 0.1.0
 */
export type StoreError = Unavailable | PublishUncertain | DurabilityNotReached | BrokerError

/**
 * Why a message was refused before anything was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export type RequestError =
  | Channel.InvalidPayload
  | Channel.InvalidParams
  | InvalidPublishOptions
  | PayloadTooLarge
  | PublishRefused

/**
 * Some messages of a `publishAll` were not (surely) stored, or not as durably as asked for. `outcomes` has one entry for each payload, in
 * order: its receipt, or its error. Publish again those with an error, a `PublishUncertain` and a `DurabilityNotReached` with its id.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishIncomplete extends Data.TaggedError("PublishIncomplete")<{
  readonly channel: string
  readonly outcomes: ReadonlyArray<Receipt | StoreError | RequestError>
}> {
  override get message() {
    const failed = this.outcomes.filter((outcome) => outcome instanceof Error)
    const stored = failed.filter((outcome) => outcome instanceof DurabilityNotReached).length
    const all = `${this.outcomes.length} messages for "${this.channel}"`
    const what = [
      ...(failed.length > stored ? [`${failed.length - stored} of ${all} were not stored`] : []),
      ...(stored > 0 ? [`${stored} of ${all} are stored, but not as durably as asked for`] : [])
    ].join(", and ")
    return `${what}; the first: ${failed[0]?.message ?? ""}`
  }
}
