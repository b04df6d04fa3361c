/** Deliveries: a hand-out of a message, and the failure that may end it. */

/**
 * One hand-out of one message to one member of a group. Its identity is the token of the lease: a settlement is accepted
 * only while the member still holds this very hand-out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery {
  readonly id: string
  readonly channel: string
  /** The position at which the message was first stored. In its channel it identifies the message in every delivery; an id may repeat. */
  readonly origin: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  /** The ordering key of the message, for every group, whether it orders or not. */
  readonly orderingKey: string | undefined
  /** When the message was first published, by the backend's clock. */
  readonly publishedAtMillis: number
  /** The attempt number for the policy, from 1; crashes, releases and lost leases do not count. */
  readonly attempt: number
  /** The number of hand-outs to this group, from 1. */
  readonly deliveryCount: number
  /** Number of consumers lost after their handler had begun. Counted from the second hand-out on: the first one is not recorded. */
  readonly crashes: number
  /** The message was taken over from a lost consumer, and no handler of it has ended since: call `beginTrial` before one begins. */
  readonly isSuspect: boolean
  /** Remaining time to live, by the backend's clock at the hand-out; 0 or less: the message has expired. */
  readonly expiresInMillis: number | undefined
  /** Whether a renewal has found that a limit removed the message. Its member continues, and settles it like any other. */
  readonly isVanished: boolean
  /** Set when the stored entry could not be read as a message; `payload` then holds the entry as JSON. */
  readonly malformed: string | undefined
}

/**
 * The reason why a group gave up a message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  /**
   * `exhausted`: no retries left. `term`: the handler asked for no more attempts. `decode`: not a valid payload. `crashed`: too many
   * consumers were lost with it. `expired`: its time to live ended before it was handled.
   */
  readonly reason: "exhausted" | "term" | "decode" | "crashed" | "expired"
  /** The `_tag` or name of the error, if there was one. */
  readonly errorTag?: string | undefined
  /** At most 1 KiB. */
  readonly message: string
  /** The pretty-printed cause, at most 4 KiB. */
  readonly cause?: string | undefined
  /** The handler died with a defect: a bug, not a declared error. */
  readonly isDefect?: boolean | undefined
}
