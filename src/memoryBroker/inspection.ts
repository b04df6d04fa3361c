/** The inspection in memory. Each operation is done at once, so no message can be in two states; only due messages may wait with nobody to move them. */
import { Effect, Stream } from "effect"
import type { InspectionStore, Page, Suspect } from "../broker/inspection.ts"
import type { Recurring } from "./recurring.ts"
import type { Store } from "./store.ts"

/** At most this many messages are moved in one step. */
const batch = 500

export const make = (store: Store, recurring: Recurring, now: () => number): InspectionStore => ({
  listsKeys: Effect.succeed(true),
  walk: ({ toleranceMillis }) => {
    const lateTicks = () => recurring.due(Number.MAX_SAFE_INTEGER, now() - toleranceMillis).ticks
    return Stream.fromEffect(Effect.sync((): Page => {
      const channels = store.stats(() => true, now())
      const groups = channels.flatMap((channel) => channel.groups)
      const sum = (count: (group: (typeof groups)[number]) => number) =>
        groups.reduce((total, group) => total + count(group), 0)
      const isLate = () => store.overdue(now() - toleranceMillis)
      const overdue: Suspect = {
        finding: {
          shard: 0,
          kind: "Overdue",
          key: "waiting",
          message: "something was due and nobody has moved it: does any process run with `delayed`?",
          repair: "moves what is due, as every process does"
        },
        confirm: Effect.sync(isLate),
        repair: store.run(() => {
          const wasLate = isLate()
          while (isLate()) store.promote(batch, now())
          return wasLate
        })
      }
      const ticks = lateTicks().map(({ channel, key }): Suspect => ({
        finding: {
          shard: 0,
          kind: "OverdueTick",
          key: "ticks",
          channel,
          id: key,
          message: "its tick was due and nobody has published it: does any process run with `delayed`?"
        },
        confirm: Effect.sync(() => lateTicks().some((tick) => tick.key === key))
      }))
      return {
        looked: {
          channels: channels.length,
          groups: groups.length,
          pending: sum(({ pending }) => pending),
          ready: sum(({ ready }) => ready),
          waiting: store.waiting,
          letters: store.letters.size,
          recurring: recurring.list().length
        },
        suspects: [...(isLate() ? [overdue] : []), ...ticks]
      }
    }))
  }
})
