/** Ordering keys in the port: how a group treats them, and the refusal of a member that asks for something else. */
import { Data } from "effect"

/**
 * How a group treats ordering keys.
 *
 * - `block`: messages of one channel with the same key are handed out one at a time, in the order of the log. The first of them is the head of
 *   its key: it keeps the key closed until it is acknowledged, dropped or buried, also while it waits for a retry. The others wait behind it.
 * - `none`: the key has no meaning.
 *
 * @category models
 * @since 0.1.0
 */
export type Ordering = "block" | "none"

/**
 * A member asks for another treatment of ordering keys than its group has. It has not joined.
 *
 * @category errors
 * @since 0.1.0
 */
export class OrderingConflict extends Data.TaggedError("OrderingConflict")<{
  readonly group: string
  /** What the group has. */
  readonly recorded: Ordering
  readonly asked: Ordering
}> {
  override get message() {
    return `group "${this.group}" has ordering "${this.recorded}", not "${this.asked}": give all subscriptions of the group the same, ` +
      "or remove the group to change it"
  }
}
