/** The pauses of the group, as a member knows them by its last look at the registry. */
import type { Pause } from "../../Broker.ts"
import { restingOf } from "../../internal/pauses.ts"
import { Signal } from "../../internal/wake.ts"
import { pausesIn } from "../pauses.ts"
import type { MemberContext } from "./context.ts"

export const none: ReadonlyArray<Pause> = []

export const make = ({ membership: { group }, monotonic }: MemberContext) => {
  let current = none
  let last = ""
  let resting: ((channel: string) => boolean) | undefined
  let endsAt = Infinity
  const changed = new Signal()
  return {
    changed,
    /** The pauses in force: the same list as long as they are the same. */
    current: () => current,
    /** When the first of them ends, by the clock of the member. */
    endsAt: () => endsAt,
    covers: (channel: string) => resting?.(channel) === true,
    /** Takes note of a reply; returns whether anything has changed. */
    take: (reply: ReadonlyArray<string | number>): boolean => {
      const { endsInMillis, pauses } = pausesIn(group, reply)
      endsAt = monotonic() + endsInMillis
      const now = JSON.stringify(pauses)
      if (now === last || (pauses.length === 0 && current === none)) return false
      last = now
      current = pauses.length === 0 ? none : pauses
      resting = restingOf(pauses)
      changed.wake()
      return true
    }
  }
}
