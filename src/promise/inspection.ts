/**
 * Integrity checks as the Promise API shows them; see `docs/verify.md`.
 */

/**
 * Options of `verify` and `repair`.
 *
 * @category models
 * @since 0.1.0
 */
export interface InspectOptions {
  /**
   * A message that is overdue by more than this many milliseconds counts as never moved, and a delivery that was idle for more than this, and whose
   * message is gone, as a ghost. Longer than the longest lease of the namespace. Default 2 minutes.
   */
  readonly tolerance?: number | undefined
  /** A suspect is checked again after this many milliseconds, and counts if it is still wrong. Default 1000. */
  readonly confirmAfter?: number | undefined
  /** At most this many findings are reported, and at most this many repaired in each of at most 5 rounds. Default 1000, at most 100,000. */
  readonly limit?: number | undefined
}

/**
 * One place where the data breaks a rule.
 *
 * @category models
 * @since 0.1.0
 */
export interface Finding {
  /** Which rule is broken: one of the kinds in `docs/verify.md`. */
  readonly kind: string
  readonly shard: number
  /** The key in Redis where it was seen. */
  readonly key: string
  readonly group?: string | undefined
  readonly channel?: string | undefined
  /** The message, dead letter, recurring message or field. */
  readonly id?: string | undefined
  /** What it means, and what to do where `repair` does nothing. */
  readonly message: string
  /** What `repair` does about it; left out when it only reports it. */
  readonly repair?: string | undefined
}

/**
 * The result of `verify`.
 *
 * @category models
 * @since 0.1.0
 */
export interface VerifyReport {
  readonly findings: ReadonlyArray<Finding>
  /** How much was checked, by kind: keys, channels, groups, messages in each state, dead letters. */
  readonly looked: Readonly<Record<string, number>>
  /** `false` if there was more than `limit`. */
  readonly isComplete: boolean
  /** `false` if the server does not permit to list keys (`SCAN`): keys that nothing refers to were not found then. */
  readonly listsKeys: boolean
}

/**
 * The result of `repair`.
 *
 * @category models
 * @since 0.1.0
 */
export interface RepairReport {
  /** Findings that were repaired. */
  readonly repaired: ReadonlyArray<Finding>
  /** Findings that were only reported: an operator has to decide. */
  readonly left: ReadonlyArray<Finding>
  /** `false` if there was more than `limit`: call it again. */
  readonly isComplete: boolean
  readonly listsKeys: boolean
}
