/**
 * The pauses of the group, as a consumer keeps them: it begins nothing that they cover, gives back what waits, and tells the backend when that is
 * so. The pause of a subscription (`Subscription.pause`) is another thing: it is of this process and ends with it. Both hold together.
 */
import { Effect } from "effect"
import type { BrokerError, GroupRemoved, Pause } from "../Broker.ts"
import { restingOf } from "../internal/pauses.ts"
import type { Dispatch } from "./dispatch.ts"
import type { ShardConsumer } from "./heldDelivery.ts"

const keyOf = ({ id, pattern }: Pause) => `${id}\n${pattern}`

/** Makes the effect that waits for a change of the pauses and keeps them. One fiber for each shard runs it again and again. */
export const make = ({ dispatch, group }: {
  readonly dispatch: Pick<Dispatch<never>, "giveBackPaused">
  readonly group: string
}) => {
  // Each shard has its own copy of a pause: one line tells of it.
  let told = new Map<string, Pause>()

  const tell = Effect.fnUntraced(function*(pauses: ReadonlyArray<Pause>) {
    const before = told
    told = new Map(pauses.map((pause) => [keyOf(pause), pause]))
    for (const [key, { by, pattern, reason }] of told) {
      if (before.has(key)) continue
      yield* Effect.logInfo(
        `rotif: group "${group}" is paused on ${pattern}${
          by === undefined ? "" : ` by ${by}`
        }: ${reason}. Groups.resume ends it`
      )
    }
    for (const [key, { pattern }] of before) {
      if (!told.has(key)) yield* Effect.logInfo(`rotif: the pause of group "${group}" on ${pattern} is over`)
    }
  })

  return Effect.fnUntraced(function*(shard: ShardConsumer): Effect.fn.Return<void, BrokerError | GroupRemoved> {
    const pauses = yield* shard.member.awaitPauses
    shard.pauses = pauses
    shard.resting = restingOf(pauses)
    dispatch.giveBackPaused(shard)
    yield* tell(pauses)
    yield* shard.member.keepPauses(pauses)
  })
}
