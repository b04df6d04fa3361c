/**
 * Groups in the port: who belongs to them, and their pauses, which all processes keep.
 *
 * A pause is stored in the backend. Every member of the group, also one that joins later, stops reading and claiming what it covers until it is
 * resumed or its time is over.
 */
import type { Effect } from "effect"
import type { BrokerError } from "./error.ts"
import type { Selector } from "./selector.ts"

/**
 * A pause of a group: its consumers begin no message of the channels that it covers, in no process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pause {
  /** Tells one pause from a later one of the same group and pattern. */
  readonly id: string
  readonly group: string
  /** The name or the pattern of the channels that it covers. `**`: all of them. */
  readonly pattern: string
  readonly reason: string
  /** Who asked for it, as far as they said. */
  readonly by: string | undefined
  /** By the clock of the backend. */
  readonly sinceMillis: number
  /** When it ends by itself, by the clock of the backend; `undefined`: when it is resumed. */
  readonly untilMillis: number | undefined
}

/**
 * A pause to be made.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewPause extends Pick<Pause, "id" | "group" | "reason" | "by" | "untilMillis"> {
  readonly selector: Selector
  /** Leaves a pause as it is that is there for the same group and pattern. Otherwise the new one replaces it. */
  readonly onlyIfNone?: boolean | undefined
}

/**
 * A member of a group in one shard.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupMember {
  readonly consumer: string
  /** The channels or patterns it reads. */
  readonly patterns: ReadonlyArray<string>
  /** How long ago it was last heard of. */
  readonly idleMillis: number
  /** Whether it was heard of lately. Another one is lost, or cut off, and its leases have expired or will soon. */
  readonly isAlive: boolean
  /** The ids of the pauses that it keeps. */
  readonly keeps: ReadonlyArray<string>
}

/**
 * A group in one shard.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupState {
  readonly group: string
  readonly shard: number
  /** The channels and patterns for which it is registered. */
  readonly patterns: ReadonlyArray<string>
  readonly members: ReadonlyArray<GroupMember>
  /** Its pauses that are in force. */
  readonly pauses: ReadonlyArray<Pause>
}

/**
 * The count of dead letters of a group within a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecentLetters {
  readonly group: string
  /** Names of new letters. A name counts once. */
  readonly letters: ReadonlyArray<string>
  readonly withinMillis: number
  /** The count stops here. */
  readonly most: number
}

/**
 * Groups of a backend: list them, pause and resume them.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupStore {
  /** All groups that are registered, paused, or have members; with a name only this one. One element for each shard that has something of it. */
  readonly list: (group?: string) => Effect.Effect<ReadonlyArray<GroupState>, BrokerError>
  /**
   * Pauses the group, once for each name or the pattern of the selector. Members are told by an event. Returns false if the time of the pause is
   * over already, by the clock of the backend; then nothing was done. Called twice with the same id it is one pause.
   */
  readonly pause: (pause: NewPause) => Effect.Effect<boolean, BrokerError>
  /** Ends the pauses of the group with these names or this pattern, or all of them; returns those that were in force. */
  readonly resume: (group: string, selector: Selector | undefined) => Effect.Effect<ReadonlyArray<Pause>, BrokerError>
  /** How many messages of these channels are handed out to consumers of the group and not settled. */
  readonly handedOut: (group: string, selector: Selector) => Effect.Effect<number, BrokerError>
  /** Counts new dead letters; returns how many the group has had within the time, at most `most`. `resume` begins the count anew. */
  readonly countLetters: (recent: RecentLetters) => Effect.Effect<number, BrokerError>
}
