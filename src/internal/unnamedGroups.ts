/** Subscriptions without a group of their own: two of one channel share its messages, which is seldom meant. */
import type { Scope } from "effect"
import { Effect } from "effect"

/** How many there are, by group and pattern. */
export type Unnamed = Map<string, number>

/** Counts one more until its scope ends; the second one of a channel is told. */
export const enter = (unnamed: Unnamed, group: string, pattern: string): Effect.Effect<void, never, Scope.Scope> => {
  const name = `${group}\n${pattern}`
  const add = (by: number) => {
    const count = (unnamed.get(name) ?? 0) + by
    if (count === 0) unnamed.delete(name)
    else unnamed.set(name, count)
    return count
  }
  return Effect.flatMap(
    Effect.acquireRelease(Effect.sync(() => add(1)), () => Effect.sync(() => add(-1))),
    (count) =>
      count !== 2
        ? Effect.void
        : Effect.logWarning(
          `rotif: two subscriptions to "${pattern}" in this program have no group of their own: they share its messages as consumers of the ` +
            `group "${group}", and each gets some of them. Give each a group if both are to get all; for more handlers raise the concurrency`
        )
  )
}
