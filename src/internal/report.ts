/** A report about one message of a group. It is told by `reports.ts`. */

/** The kind of a report; see `Report`. */
export type Kind =
  | "DeadLetter"
  | "Defect"
  | "Failure"
  | "Interrupted"
  | "Released"
  | "Busy"
  | "LeaseLost"
  | "SlowHandler"
  | "Expired"
  | "NotJudged"

/**
 * A report about one message of a group.
 *
 * - `DeadLetter`: it became a dead letter; `reason` and `tag` say why.
 * - `Defect`: its handler died, and it is tried again.
 * - `Failure`: its handler failed, and it is tried again.
 * - `Interrupted`: its handler ended by interruption, and it is given back.
 * - `Released`: its handler or its retry policy gave it back.
 * - `Busy`: another message with its `exactlyOnce` key is being handled.
 * - `LeaseLost`: its lease ended before it was settled.
 * - `SlowHandler`: its handler runs for longer than `slowHandler`.
 * - `Expired`: its time to live ended, and it is dropped (`expired: "drop"`). In the log this is a line of level `Debug`, and a warning for the
 *   8th, 16th, 32nd, … message of a channel.
 * - `NotJudged`: no verdict about it could be made, which is a mistake in Rotif; it is given back.
 *
 * `Interrupted`, `Released`, `Busy` and `NotJudged` may happen to one message repeatedly. They are reported at rounds 1, 2, 4, 8, ….
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly kind: Kind
  readonly group: string
  readonly channel: string
  /** The id of the message. */
  readonly id: string
  readonly attempt: number
  /**
   * How often this has happened to the message, from 1. For `Defect`: how often this kind of defect has happened. For `Expired`: the number of
   * messages of the channel that have expired.
   */
  readonly round: number
  /** The reason of a dead letter, or of a message that expired. */
  readonly reason: string | undefined
  /** The `_tag` or name of the error of the handler. */
  readonly tag: string | undefined
  /** The whole line for the log. It has no payload. */
  readonly message: string
}
