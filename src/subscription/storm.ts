/** Storms of dead letters: too many of them within a time pause the group, so that a fault does not bury the whole backlog. */
import { Duration, Effect, Latch } from "effect"
import type { Broker, BrokerError, Delivery, Failure, Membership } from "../Broker.ts"
import { uniqueName } from "../internal/uniqueName.ts"

/** How many dead letters of a group within which time are a storm. */
export interface Storm {
  readonly dead: number
  readonly withinMillis: number
}

export const make = (
  { broker, membership: { consumer, group, selector }, storm: { dead, withinMillis } }: {
    readonly broker: Broker["Service"]
    readonly membership: Omit<Membership, "shard">
    readonly storm: Storm
  }
) => {
  let letters: ReadonlyArray<string> = []
  const some = Latch.makeUnsafe(false)
  const reason = `${dead} dead letters within ${Duration.format(Duration.millis(withinMillis))}`

  return {
    /** Takes note of a dead letter. A message whose time was over has no failure behind it. */
    buried: ({ channel, deliveryCount, origin }: Delivery, failure: Failure) => {
      if (failure.reason === "expired") return
      letters = [...letters.slice(-dead), `${channel}\n${origin}\n${deliveryCount}`]
      some.openUnsafe()
    },
    /** Waits for dead letters, counts them, and pauses the group if there are too many. One fiber runs it again and again. */
    watch: Effect.gen(function*(): Effect.fn.Return<void, BrokerError> {
      yield* some.await
      some.closeUnsafe()
      const batch = letters
      letters = []
      const count = yield* Effect.onError(
        broker.groups.countLetters({ group, letters: batch, withinMillis, most: dead }),
        () =>
          Effect.sync(() => {
            letters = [...batch, ...letters].slice(-dead)
            some.openUnsafe()
          })
      )
      if (count < dead) return
      yield* broker.groups.pause({
        id: uniqueName(),
        group,
        selector,
        reason,
        by: `pauseWhen of ${consumer}`,
        untilMillis: undefined,
        onlyIfNone: true
      })
      yield* Effect.logWarning(
        `rotif: group "${group}" is paused, because it made ${reason}: look at them, and end the pause with Groups.resume`
      )
    })
  }
}
