/** Errors of the port. */
import { Schema } from "effect"

/**
 * The reason why an operation of a broker failed.
 *
 * - `Unavailable`: the backend could not be reached in time; the operation did not take effect.
 * - `Uncertain`: the connection was lost after the request was sent; the operation may have taken effect.
 * - `Overloaded`: the backend is out of memory or refuses work for now; the operation did not take effect.
 * - `Refused`: the backend does not accept it until somebody changes something (authentication, permissions, wrong data under a key,
 *   wrong version, a different number of shards).
 * - `Stopped`: the layer has ended; the operation was not begun.
 *
 * @category errors
 * @since 0.1.0
 */
export const BrokerErrorReason = Schema.Literals(["Unavailable", "Uncertain", "Overloaded", "Refused", "Stopped"])

/**
 * The reason of a `BrokerError`, as a type.
 *
 * @category errors
 * @since 0.1.0
 */
export type BrokerErrorReason = typeof BrokerErrorReason.Type

/**
 * An operation of the backend failed. Every operation of the port except `append` may be repeated after it: settlements are fenced, so a second
 * one changes nothing.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Schema.TaggedError<BrokerError>()("BrokerError", {
  reason: BrokerErrorReason,
  /** The operation of the port, such as `"ack"`. */
  operation: Schema.String,
  /** The problem, its place, and the remedy. */
  message: Schema.String
}) {
  /** Whether the same call may succeed later without anybody changing anything. */
  get isRetryable(): boolean {
    return this.reason !== "Refused" && this.reason !== "Stopped"
  }
}

/**
 * The group of this consumer was removed by `removeGroup`. The consumer has ended, and does not create the group again; the messages it held are
 * forgotten with the group. A new subscription creates a new group.
 *
 * **Details**: a group that Redis has lost (a flush, a failover) is another thing: that is made again where it was.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupRemoved extends Schema.TaggedError<GroupRemoved>()("GroupRemoved", {
  group: Schema.String,
  /** The channels or patterns the consumer reads. */
  patterns: Schema.Array(Schema.String)
}) {
  override get message() {
    return `group "${this.group}" on ${
      this.patterns.map((pattern) => `"${pattern}"`).join(", ")
    } was removed by somebody: this consumer of it has ended; subscribe again to make a new group`
  }
}
