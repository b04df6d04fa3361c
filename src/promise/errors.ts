/**
 * The errors of the Promise API: plain classes, told apart by `instanceof` or by `_tag`. The errors of the layers below are translated into them
 * where a Promise is rejected.
 */
import type { ValidationIssue } from "./standardSchema.ts"

/**
 * An error of Rotif. Its message says what was wrong, where, and what to do.
 *
 * @category errors
 * @since 0.1.0
 */
export class RotifError extends Error {
  /** The name of the class, which is the same in every copy of the package. */
  readonly _tag: string

  constructor(tag: string, fields: { readonly message: string }) {
    super(fields.message)
    this._tag = tag
    this.name = tag
    Object.assign(this, fields)
    // Now the stack begins with its name.
    Error.captureStackTrace(this, new.target)
  }
}

/**
 * An option is unknown, or has a value that it cannot have. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOption extends RotifError {
  declare readonly _tag: "InvalidOption"
  /** Its name, with dots: `"redis.url"`. */
  declare readonly option: string
  constructor(fields: { readonly option: string; readonly message: string }) {
    super("InvalidOption", fields)
  }
}

/**
 * The name of a channel, or a pattern, cannot be used. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidChannelName extends RotifError {
  declare readonly _tag: "InvalidChannelName"
  declare readonly channel: string
  constructor(fields: { readonly channel: string; readonly message: string }) {
    super("InvalidChannelName", fields)
  }
}

/**
 * A payload has no JSON form, or its validator refused it. Nothing was stored.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPayload extends RotifError {
  declare readonly _tag: "InvalidPayload"
  declare readonly channel: string
  /** What the validator of the channel found wrong; empty if the payload has no JSON form. */
  declare readonly issues: ReadonlyArray<ValidationIssue>
  constructor(
    fields: { readonly channel: string; readonly issues: ReadonlyArray<ValidationIssue>; readonly message: string }
  ) {
    super("InvalidPayload", fields)
  }
}

/**
 * Payload and headers together are larger than `maxPayloadBytes`. Nothing was stored.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends RotifError {
  declare readonly _tag: "PayloadTooLarge"
  declare readonly channel: string
  declare readonly bytes: number
  declare readonly limit: number
  constructor(
    fields: { readonly channel: string; readonly bytes: number; readonly limit: number; readonly message: string }
  ) {
    super("PayloadTooLarge", fields)
  }
}

/**
 * Redis could not be reached in time. The message is not stored; publishing it again is safe.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends RotifError {
  declare readonly _tag: "Unavailable"
  declare readonly channel: string
  /** The id that the message would have had. */
  declare readonly id: string
  readonly isRetryable = true
  constructor(fields: { readonly channel: string; readonly id: string; readonly message: string }) {
    super("Unavailable", fields)
  }
}

/**
 * The connection was lost after the message was sent, and whether it is stored could not be found out in time. It may be stored: publish it again
 * only with the same `dedupKey`, or accept that it may be handled twice.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishUncertain extends RotifError {
  declare readonly _tag: "PublishUncertain"
  declare readonly channel: string
  declare readonly id: string
  constructor(fields: { readonly channel: string; readonly id: string; readonly message: string }) {
    super("PublishUncertain", fields)
  }
}

/**
 * The message is stored, and is being delivered; but the requested `durability` was not reached in time. Publishing it again with the same
 * `dedupKey` stores nothing, and waits again.
 *
 * @category errors
 * @since 0.1.0
 */
export class DurabilityNotReached extends RotifError {
  declare readonly _tag: "DurabilityNotReached"
  declare readonly channel: string
  declare readonly id: string
  /** The number of replicas that surely had the message when the time was over. */
  declare readonly replicas: number
  readonly isRetryable = true
  constructor(
    fields: { readonly channel: string; readonly id: string; readonly replicas: number; readonly message: string }
  ) {
    super("DurabilityNotReached", fields)
  }
}

/**
 * Some messages of a `publishBatch` are not stored, perhaps not stored, or not as durably as requested. Publish those with an error again.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishIncomplete extends RotifError {
  declare readonly _tag: "PublishIncomplete"
  /** For each message, in order: what `publish` resolves to, or the error that it rejects with. */
  declare readonly results: ReadonlyArray<string | Error>
  constructor({ results }: { readonly results: ReadonlyArray<string | Error> }) {
    const failed = results.filter((result) => result instanceof Error)
    const stored = failed.filter((error) => error instanceof DurabilityNotReached).length
    const what = [
      ...(failed.length > stored ? [`${failed.length - stored} of ${results.length} messages were not stored`] : []),
      ...(stored > 0 ? [`${stored} of ${results.length} messages are stored, but not as durably as asked for`] : [])
    ].join(", and ")
    super("PublishIncomplete", { message: `${what}; the first: ${failed[0]?.message ?? ""}` })
    this.results = results
  }
}

/**
 * Redis could not do what was asked for.
 *
 * - `Unavailable`: it could not be reached in time; nothing was done.
 * - `Uncertain`: the connection was lost after the request was sent; it may have been done.
 * - `Overloaded`: Redis is out of memory or refuses work for now; nothing was done.
 * - `Refused`: Redis does not accept it until somebody changes something, such as a permission or wrong data under a key.
 * - `Stopped`: the manager has stopped; nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends RotifError {
  declare readonly _tag: "BrokerError"
  declare readonly reason: "Unavailable" | "Uncertain" | "Overloaded" | "Refused" | "Stopped"
  /** What was being done, such as `"ack"`. */
  declare readonly operation: string
  constructor(
    fields: { readonly reason: BrokerError["reason"]; readonly operation: string; readonly message: string }
  ) {
    super("BrokerError", fields)
  }
  /** Whether the same call may succeed later without anybody changing anything. */
  get isRetryable(): boolean {
    return this.reason !== "Refused" && this.reason !== "Stopped"
  }
}

/**
 * The lease of a message ended before it was settled: another process of the group has it, or will have it.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseLost extends RotifError {
  declare readonly _tag: "LeaseLost"
  /** The id of the message. */
  declare readonly id: string
  constructor(fields: { readonly id: string; readonly message: string }) {
    super("LeaseLost", fields)
  }
}

/**
 * The group of a subscription was removed: the subscription has ended, and the messages that it held are forgotten with the group.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupRemoved extends RotifError {
  declare readonly _tag: "GroupRemoved"
  declare readonly group: string
  /** The channels or patterns of the subscription. */
  declare readonly patterns: ReadonlyArray<string>
  constructor(fields: { readonly group: string; readonly patterns: ReadonlyArray<string>; readonly message: string }) {
    super("GroupRemoved", fields)
  }
}

/**
 * The `NotificationManager` has stopped, or is stopping: nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class ManagerStopped extends RotifError {
  declare readonly _tag: "ManagerStopped"
  constructor() {
    super("ManagerStopped", { message: "the NotificationManager is stopped (stopAll was called): make another one" })
  }
}

/**
 * Throw this in a handler to send its message to the dead letters at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnrecoverableError extends Error {
  override readonly name: string = "UnrecoverableError"
}
