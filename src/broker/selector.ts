/** The channels that a group reads, and the place where it begins. */

/**
 * The channels that a group reads: named ones, or all that match a pattern, now and in future.
 *
 * @category models
 * @since 0.1.0
 */
export type Selector =
  | { readonly _tag: "Channels"; readonly names: ReadonlyArray<string> }
  | { readonly _tag: "Pattern"; readonly pattern: string }

/**
 * The place where a new group begins on channels that exist already. Channels created later are always read from their beginning.
 *
 * - `Earliest`: with the oldest message kept. - `Latest`: with the next one published.
 * - `Position`: after this position. - `Time`: with the first one published at or after this time (epoch milliseconds).
 *
 * @category models
 * @since 0.1.0
 */
export type Start =
  | { readonly _tag: "Earliest" }
  | { readonly _tag: "Latest" }
  | { readonly _tag: "Position"; readonly position: string }
  | { readonly _tag: "Time"; readonly atMillis: number }
