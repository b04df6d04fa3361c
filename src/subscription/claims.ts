/** Claims: takes over deliveries whose lease has expired at another consumer. */
import type { Clock } from "effect"
import { Effect } from "effect"
import type { Membership } from "../Broker.ts"
import * as GroupSettings from "../broker/groupSettings.ts"
import type { Accept } from "./acceptance.ts"
import type { Capacity } from "./capacity.ts"
import type { Counts, ShardConsumer } from "./heldDelivery.ts"

export interface Options {
  readonly accept: Accept
  readonly capacity: Capacity
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly membership: Omit<Membership, "shard">
}

/** Makes the effect that takes over expired deliveries of a shard, as many as there is room for. */
export const make = ({ accept, capacity, clock, counts, membership }: Options) => {
  const groupSettings = GroupSettings.make(membership.group, membership)
  return Effect.fnUntraced(function*(shard: ShardConsumer) {
    // Uninterruptible: claimed deliveries are taken.
    const found = yield* Effect.uninterruptible(Effect.suspend(() => {
      const count = capacity.reserveForClaim()
      const askedAt = clock.monotonicTimeNanosUnsafe()
      return Effect.ensuring(
        Effect.map(shard.member.claim(count), ({ deliveries, nextInMillis, settings, vanished }) => {
          counts.crashed += deliveries.length
          accept(shard, askedAt, deliveries)
          return { nextInMillis, settings, vanished, isMore: nextInMillis === 1 && deliveries.length >= count }
        }),
        Effect.sync(() => capacity.release(count))
      )
    }))
    for (const words of groupSettings.heard(found.settings)) yield* Effect.logWarning(words)
    if (found.vanished > 0) {
      counts.vanished += found.vanished
      yield* Effect.logWarning(
        `rotif: group "${membership.group}" lost ${found.vanished} messages: a limit of their channel removed them before they were handled`
      )
    }
    return found
  })
}
