/**
 * How a member follows the pauses of its group. An event tells of a change; if it was lost, a look within half a lease finds it.
 */
import { Effect } from "effect"
import type { BrokerError, GroupRemoved, Pause } from "../../Broker.ts"
import type { RedisError } from "../../Redis.ts"
import { keepPauses } from "../scripts/groups/keepPauses.ts"
import type { MemberContext } from "./context.ts"
import { none } from "./knownPauses.ts"
import type { Sources } from "./sources.ts"

/** The longest wait of one timer: a day. */
const longestMillis = 86_400_000

export const make = (
  { connection, fail, keys, membership: { consumer, group }, monotonic }: MemberContext,
  sources: Sources,
  /** Ends when no read is under way that began before. */
  nudge: Effect.Effect<void>,
  failOr: (operation: string) => (error: RedisError) => BrokerError | GroupRemoved
) => {
  const { changed, current, endsAt } = sources.pauses
  let kept = none

  const record = Effect.suspend(() =>
    connection.evaluate(keepPauses, [keys.resting(group)], [consumer, kept.map(({ id }) => id).join(" ")])
  )

  const isOther = () => current() !== kept

  const look = Effect.suspend(() => {
    if (monotonic() >= endsAt()) sources.markStale()
    return sources.checkIfDue
  })

  const awaitPauses: Effect.Effect<ReadonlyArray<Pause>, RedisError> = Effect.suspend(() =>
    isOther() ? Effect.succeed(current()) : Effect.timeoutOption(
      changed.wait(isOther),
      Math.max(1, Math.min(longestMillis, sources.nextAskAt() - monotonic(), endsAt() - monotonic()))
    ).pipe(
      Effect.andThen(look),
      // Whatever has removed the record, it comes back.
      Effect.andThen(Effect.suspend(() => kept.length > 0 && !isOther() ? record : Effect.void)),
      Effect.andThen(awaitPauses)
    )
  )

  return {
    awaitPauses: Effect.mapError(awaitPauses, failOr("awaitPauses")),
    keepPauses: (pauses: ReadonlyArray<Pause>) =>
      Effect.andThen(
        nudge,
        Effect.suspend(() => {
          kept = pauses
          return Effect.onError(Effect.mapError(Effect.asVoid(record), fail("keepPauses")), () =>
            Effect.sync(() => {
              // Not the list that is current: it is kept again.
              kept = pauses.length === 0 ? [] : none
            }))
        })
      )
  }
}
