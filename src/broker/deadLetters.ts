/**
 * Dead letters in the port: messages that groups gave up, until they are requeued or removed, or their retention ends.
 *
 * Letters are in the shard of their channel, in the order of their death. A letter never changes; it is there or gone.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import type { Delivery, Failure } from "./delivery.ts"
import type { BrokerError } from "./error.ts"

/**
 * An earlier death of a message that was requeued.
 *
 * @category models
 * @since 0.1.0
 */
export interface PastFailure extends Failure {
  readonly diedAtMillis: number
  /** Its last attempt at that time. */
  readonly attempt: number
}

/**
 * A message that a group gave up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Letter extends Omit<Delivery, "origin" | "isSuspect" | "expiresInMillis" | "isVanished"> {
  /** The id of the dead letter (not of the message), unique within its shard and ascending in time. */
  readonly letterId: string
  readonly group: string
  readonly diedAtMillis: number
  readonly failure: Failure
  /** Its failures before it was requeued, oldest first; at most the last 10. */
  readonly history: ReadonlyArray<PastFailure>
}

/**
 * A range of the letters of a shard. All bounds are letter ids, and exclusive.
 *
 * @category models
 * @since 0.1.0
 */
export interface LetterRange {
  readonly order: "oldest" | "newest"
  readonly limit: number
  /** Only letters that died after this one, and before that one. */
  readonly after?: string | undefined
  readonly before?: string | undefined
  /** Only letters that are at least this old, by the backend's clock. */
  readonly minAgeMillis?: number | undefined
}

/**
 * The number of letters of one kind.
 *
 * @category models
 * @since 0.1.0
 */
export interface LetterCount {
  readonly group: string
  readonly channel: string
  readonly reason: Failure["reason"]
  readonly count: number
}

/**
 * A letter leased to one reader of a named subscription to dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Offer {
  readonly letter: Letter
  /** The token of the lease: it changes with every offer. */
  readonly token: string
  /** The number of offers of this letter under this name, from 1. */
  readonly offerCount: number
}

/**
 * The conclusion of a reader about an offered letter.
 *
 * - `remove`: the letter is deleted. - `keep`: it stays, and is not offered again under this name.
 * - `again`: it is offered again after `millis`. - `release`: it is offered again at once, and this offer does not count.
 * - `renew`: the lease begins anew and lasts `millis`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Conclusion {
  readonly letterId: string
  readonly token: string
  readonly outcome: "remove" | "keep" | "again" | "release" | "renew"
  readonly millis?: number | undefined
}

/**
 * Dead letters, one shard at a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface LetterStore {
  readonly list: (shard: number, range: LetterRange) => Effect.Effect<ReadonlyArray<Letter>, BrokerError>
  readonly get: (shard: number, letterId: string) => Effect.Effect<Letter | undefined, BrokerError>
  /**
   * Makes the messages of these letters ready again for the group that failed, and for it only: attempt 1, no crashes, its failures kept as
   * history; with another payload where one is given. Returns the ids of the moved letters: a letter that is gone or malformed is not among them.
   * After an `Uncertain` error some may have moved; calling again moves none twice.
   */
  readonly requeue: (
    shard: number,
    items: ReadonlyArray<{ readonly letterId: string; readonly payload?: string | undefined }>
  ) => Effect.Effect<ReadonlyArray<string>, BrokerError>
  /** Deletes letters, and returns the ids of the deleted ones. */
  readonly remove: (
    shard: number,
    letterIds: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<string>, BrokerError>
  /** Counts by group, channel and reason; malformed letters are in none. */
  readonly counts: (shard: number) => Effect.Effect<ReadonlyArray<LetterCount>, BrokerError>
  /**
   * Leases letters to a reader of the subscription `name`: first those whose lease or pause has ended, then new ones. A letter that is neither
   * concluded nor renewed is offered again after the lease. `nextInMillis`: the time until the next lease or pause ends.
   */
  readonly offer: (shard: number, options: {
    readonly name: string
    readonly limit: number
    readonly leaseMillis: number
    /** Where a new name begins: with the oldest letter, or with the next one. */
    readonly start: "earliest" | "latest"
  }) => Effect.Effect<
    { readonly offers: ReadonlyArray<Offer>; readonly nextInMillis: number | undefined },
    BrokerError
  >
  /** Ends offers. Returns the ids of letters whose conclusion was refused, because they had been offered again by then. */
  readonly conclude: (
    shard: number,
    name: string,
    conclusions: ReadonlyArray<Conclusion>
  ) => Effect.Effect<ReadonlyArray<string>, BrokerError>
  /** Forgets a subscription to dead letters; the letters stay. */
  readonly forget: (shard: number, name: string) => Effect.Effect<void, BrokerError>
  /** Returns the number of letters, with the malformed ones. */
  readonly size: (shard: number) => Effect.Effect<number, BrokerError>
  /** Completes when, after this call, a letter may be offered that could not be before. */
  readonly awaitLetter: (shard: number) => Effect.Effect<void>
  /** Returns whether this process has to apply the retention for this long: one process at a time, as far as a lease can ensure it. */
  readonly lead: (leaseMillis: number) => Effect.Effect<boolean, BrokerError>
}

/**
 * How many earlier failures a letter keeps.
 *
 * @internal
 */
export const historyLength = 10

/** At most this many characters of a pretty-printed cause go into the history. */
const pastCauseLength = 1024

/**
 * The history of a message that leaves the dead letters, this death included.
 *
 * @internal
 */
export const pastOf = (
  history: ReadonlyArray<PastFailure> | undefined,
  failure: Failure,
  diedAtMillis: number,
  attempt: number
): ReadonlyArray<PastFailure> =>
  [...history ?? [], { ...failure, cause: failure.cause?.slice(0, pastCauseLength), diedAtMillis, attempt }].slice(
    -historyLength
  )
