/** The outcome of a publish: its receipt, and its errors. */
import { Data, DateTime, Schema } from "effect"
import type { Appended, BrokerError, NewMessage, Shortfall } from "../Broker.ts"
import type * as Channel from "../Channel.ts"

/** The message that a receipt is about. */
const about = { id: Schema.String, channel: Schema.String }

/**
 * The receipt of a publish.
 *
 * - `Published`: the message is stored, at `position` in the log of its channel.
 * - `Scheduled`: the message is stored and waits until `dueAt`, by the clock of the backend.
 * - `Duplicate`: an earlier message has this `id`, within the deduplication window or still waiting; nothing was added. `position` is that of
 *   the earlier message, if it was stored in the log at once.
 *
 * @category models
 * @since 0.1.0
 */
export const Receipt = Schema.Union([
  Schema.TaggedStruct("Published", { ...about, position: Schema.String }),
  Schema.TaggedStruct("Scheduled", { ...about, position: Schema.Undefined, dueAt: Schema.DateTimeUtc }),
  Schema.TaggedStruct("Duplicate", { ...about, position: Schema.UndefinedOr(Schema.String) })
])

/**
 * The receipt of a publish, as a type.
 *
 * @category models
 * @since 0.1.0
 */
export type Receipt = typeof Receipt.Type

/**
 * The encoded message is larger than allowed. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>()("PayloadTooLarge", {
  channel: Schema.String,
  /** Size of payload and headers, in bytes. */
  bytes: Schema.Finite,
  limit: Schema.Finite
}) {
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
export class InvalidPublishOptions extends Schema.TaggedError<InvalidPublishOptions>()("InvalidPublishOptions", {
  channel: Schema.String,
  message: Schema.String
}) {}

/**
 * The backend could not be reached in time. The message is not stored; publishing again is safe.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  channel: Schema.String,
  id: Schema.String,
  message: Schema.String
}) {
  /** Whether the same publish may succeed later without a change by anybody: always. */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The connection was lost after the message was sent, and whether the message is stored could not be found out in time. Publish it again with
 * `{ id: error.id }` through the same `Publisher`: it is stored once in either case.
 *
 * **Details**: if `isLasting` is true, publishing it again with this id gives the same error, because the evidence is gone. A plain message is
 * searched for in its log, from which it may have been removed since: by a limit of the channel, or because every group has acknowledged it
 * (`graceMillis` later). The outcome of a publish with an id, a window or a delay is kept for 10 minutes, and for as long as its window. If the
 * message must be handled, publish it under another id; it may then be handled twice.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishUncertain extends Schema.TaggedError<PublishUncertain>()("PublishUncertain", {
  channel: Schema.String,
  id: Schema.String,
  message: Schema.String,
  /** Whether it can never be found out. */
  isLasting: Schema.Boolean
}) {
  /** Whether publishing it again with its id may succeed later without a change by anybody. */
  get isRetryable(): boolean {
    return !this.isLasting
  }
}

/**
 * A middleware of the program (`Middleware.layer`) failed with `error`. Nothing was stored, unless it failed after it had published.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishRefused extends Schema.TaggedError<PublishRefused>()("PublishRefused", {
  channel: Schema.String,
  /** The error of the middleware. Over a wire it is plain data, or an `Error` with its name and message. */
  error: Schema.Defect()
}) {
  override get message() {
    const why = this.error instanceof Error ? this.error.message : String(this.error)
    return `a middleware refused a message for "${this.channel}": ${why}`
  }
}

/**
 * The message is stored, as `receipt` says, and is being delivered; but the requested `durability` was not reached in time. If the master is
 * lost now, the message may be lost with it.
 *
 * **Details**: to be sure, publish it again with `{ id: error.id }` through the same `Publisher`: that stores nothing while the message exists,
 * stores it if a new master does not have it, and waits again. Otherwise there is nothing to do: slow replicas get the message all the same.
 *
 * @category errors
 * @since 0.1.0
 */
export class DurabilityNotReached extends Schema.TaggedError<DurabilityNotReached>()("DurabilityNotReached", {
  channel: Schema.String,
  id: Schema.String,
  /** The receipt of the stored message. */
  receipt: Receipt,
  /** The number of replicas that surely had the message when the time was over. */
  replicas: Schema.Finite,
  message: Schema.String
}) {
  /** Whether publishing it again with its id may succeed later without a change by anybody: always. */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * The errors of storing one message: it is not stored, perhaps not stored, or (`DurabilityNotReached`) stored with less certainty than
 * requested. `isRetryable` of each says whether the same publish, with its id, may succeed later.
 *
 * @category errors
 * @since 0.1.0
 */
export type StoreError = Unavailable | PublishUncertain | DurabilityNotReached | BrokerError

/**
 * The errors of a message that was refused before anything was sent.
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
 * Some messages of a `publishAll` are not stored, perhaps not stored, or not as durably as requested. `outcomes` has one entry for each
 * payload, in order: its receipt, or its error. Publish those with an error again; a `PublishUncertain` and a `DurabilityNotReached` with its id.
 *
 * **Details**: among the errors may be those of the channel's own middleware, so this is no `Schema` error. Its outcomes are: they can be sent over
 * a wire one by one.
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

/** Reads the outcome that the broker has for a message. */
export const outcomeOf = (message: NewMessage, appended: Appended): Receipt | StoreError => {
  const { channel, id } = message
  const asDurable = (receipt: Receipt, shortfall: Shortfall | undefined): Receipt | DurabilityNotReached => {
    if (shortfall === undefined) return receipt
    const { problem, replicas } = shortfall
    return new DurabilityNotReached({
      channel,
      id,
      receipt,
      replicas,
      message:
        `the message ${id} for "${channel}" is stored, but only ${replicas} of ${
          message.durability?.replicas ?? replicas
        } replicas had it in time; to be sure, publish it again with { id: "${id}" }` +
        (problem === undefined ? "" : ` (${problem})`)
    })
  }
  switch (appended._tag) {
    case "Stored":
      return asDurable({ _tag: "Published", id, channel, position: appended.position }, appended.shortfall)
    case "Scheduled":
      return asDurable({
        _tag: "Scheduled",
        id,
        channel,
        position: undefined,
        dueAt: DateTime.makeUnsafe(appended.dueAtMillis)
      }, appended.shortfall)
    case "Duplicate":
      return asDurable(
        { _tag: "Duplicate", id: appended.id, channel, position: appended.position },
        appended.shortfall
      )
    case "Failed":
      return appended.error.reason === "Unavailable"
        ? new Unavailable({ channel, id, message: appended.error.message })
        : appended.error
    case "Uncertain":
      return new PublishUncertain({
        channel,
        id,
        isLasting: appended.isLasting === true,
        message: `it is not known whether the message ${id} for "${channel}" was stored; ` +
          (appended.isLasting === true
            ? "whoever must have it handled publishes it under another id, and it may be handled twice"
            : `publish it again with { id: "${id}" }`) +
          ` (${appended.error.message})`
      })
  }
}
