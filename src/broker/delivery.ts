/** A hand-out of a message, and the failure it may end with. */

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
  /** Where the message was stored first: in its channel it names this one stored message, in every delivery. An id may come again. */
  readonly origin: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  /** When the message was first published, by the backend's clock. */
  readonly publishedAtMillis: number
  /** The attempt the policy sees, from 1; crashes, releases and lost leases do not count. */
  readonly attempt: number
  /** How often the message was handed out to this group, from 1. */
  readonly deliveryCount: number
  /** How many consumers were lost after the handler had begun. It is known from the second hand-out on: the first one notes nothing. */
  readonly crashes: number
  /** It was taken over from a lost consumer, and its handler has not ended since: `tryAgain` before that begins. */
  readonly isSuspect: boolean
  /** How long it may still be handled, by the backend's clock at the hand-out; 0 or less: it has expired. */
  readonly expiresInMillis: number | undefined
  /** Whether a renewal has found that a limit removed the message meanwhile. Its member goes on with it, and settles it as any other. */
  readonly isVanished: boolean
  /** Set when the stored entry could not be read as a message; `payload` then holds what was found, as JSON. */
  readonly malformed: string | undefined
}

/**
 * Why a group gave a message up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  /**
   * `exhausted`: no retries left. `term`: the handler said never again. `decode`: not a valid payload. `crashed`: it took too many
   * consumers down. `expired`: its time to live ended before it was handled.
   */
  readonly reason: "exhausted" | "term" | "decode" | "crashed" | "expired"
  /** The `_tag` or name of the error, if there was one. */
  readonly errorTag?: string | undefined
  /** At most 1 KiB. */
  readonly message: string
  /** The pretty-printed cause, at most 4 KiB. */
  readonly cause?: string | undefined
  /** The handler died of it: a bug, no error it declares. */
  readonly isDefect?: boolean | undefined
}
