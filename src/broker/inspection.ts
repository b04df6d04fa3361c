/**
 * Integrity checks of the port: states that no operation can leave behind.
 *
 * @since 0.1.0
 */
import type { Effect, Stream } from "effect"
import { Schema } from "effect"
import type { BrokerError } from "./error.ts"

/**
 * The kind of a finding: which rule of the data is broken. `docs/verify.md` says how each comes about, and what `repair` does about it.
 *
 * - Keys: `UnknownKey`, `WrongType`, `NoExpiry`, `Misplaced`, `OrphanRecord`.
 * - Channels and groups: `UnregisteredChannel`, `MissingLog`, `Unreadable`, `UnlistedRetries`, `UnregisteredGroup`, `LostGroup`, `FloorBeyondCursor`.
 * - Messages: `TwoStates`, `Overdue`, `BodyWithoutTime`, `TimeWithoutBody`, `GhostDelivery`, `BrokenGate`, `Unrelayed`.
 * - Recurring messages: `OverdueTick`, `TickWithoutDefinition`, `DefinitionWithoutTick`.
 * - Dead letters and counts: `LostOffer`, `LetterCount`, `Miscounted`, `LostMessages`.
 *
 * @category models
 * @since 0.1.0
 */
export const Kind = Schema.Literals([
  "UnknownKey",
  "WrongType",
  "NoExpiry",
  "Misplaced",
  "OrphanRecord",
  "UnregisteredChannel",
  "MissingLog",
  "Unreadable",
  "UnlistedRetries",
  "UnregisteredGroup",
  "LostGroup",
  "FloorBeyondCursor",
  "TwoStates",
  "Overdue",
  "BodyWithoutTime",
  "TimeWithoutBody",
  "GhostDelivery",
  "BrokenGate",
  "Unrelayed",
  "OverdueTick",
  "TickWithoutDefinition",
  "DefinitionWithoutTick",
  "LostOffer",
  "LetterCount",
  "Miscounted",
  "LostMessages"
])

/**
 * The kind of a finding, as a type.
 *
 * @category models
 * @since 0.1.0
 */
export type Kind = typeof Kind.Type

/**
 * One place where the data breaks a rule.
 *
 * @category models
 * @since 0.1.0
 */
export const Finding = Schema.Struct({
  kind: Kind,
  shard: Schema.Int,
  /** The key of the backend where it was seen. */
  key: Schema.String,
  group: Schema.optional(Schema.UndefinedOr(Schema.String)),
  channel: Schema.optional(Schema.UndefinedOr(Schema.String)),
  /** The message, or the dead letter, recurring message or field: as the backend names it there. */
  id: Schema.optional(Schema.UndefinedOr(Schema.String)),
  /** What it means, and what to do where `repair` does nothing. */
  message: Schema.String,
  /** What `repair` does about it; left out when it only reports it. */
  repair: Schema.optional(Schema.UndefinedOr(Schema.String))
})

/**
 * A finding, as a type.
 *
 * @category models
 * @since 0.1.0
 */
export interface Finding extends Schema.Schema.Type<typeof Finding> {}

/**
 * The extent of a walk: what it has checked so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface Looked {
  /** Keys under the prefix. */
  readonly keys: number
  readonly channels: number
  /** Groups, counted on each channel they read. */
  readonly groups: number
  /** Deliveries that are handed out. */
  readonly pending: number
  /** Entries of retry streams that are not settled. */
  readonly ready: number
  /** What waits for a time. */
  readonly waiting: number
  readonly bodies: number
  readonly letters: number
  readonly recurring: number
}

/**
 * Something that looked wrong when it was read, in several steps, under traffic. It is a finding if it is confirmed later, at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Suspect {
  readonly finding: Finding
  /** Whether the finding is true, read at one moment. */
  readonly confirm: Effect.Effect<boolean, BrokerError>
  /** Confirms the finding and repairs it in the same step; true if it was there and is repaired. */
  readonly repair?: Effect.Effect<boolean, BrokerError> | undefined
}

/**
 * A bounded step of a walk.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly looked?: Partial<Looked> | undefined
  readonly suspects: ReadonlyArray<Suspect>
}

/**
 * Integrity checks of a backend: find states that no operation can produce.
 *
 * @category models
 * @since 0.1.0
 */
export interface InspectionStore {
  /** Whether the backend lets all keys be listed. */
  readonly listsKeys: Effect.Effect<boolean, BrokerError>
  /** Walks all data in pages. Anything younger than the tolerance is not overdue, and a delivery touched since is no ghost. */
  readonly walk: (options: { readonly toleranceMillis: number }) => Stream.Stream<Page, BrokerError>
}
