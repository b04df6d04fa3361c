/** The settings of the members of a group, as far as they have shared them lately. */
import { Effect } from "effect"
import type { GroupSettings } from "../../Broker.ts"
import { decode, encode } from "../../broker/groupSettings.ts"
import { shareSettings } from "../scripts/member/shareSettings.ts"
import type { MemberContext } from "./context.ts"

/** After this many leases a member's settings do not count any more: its deliveries have been taken over by then. */
const leasesToCount = 3

export const make = ({ connection, keys, membership, monotonic }: MemberContext) => {
  const { group, leaseMillis } = membership
  let settings: ReadonlyArray<GroupSettings> = [membership]
  let dueAt = -Infinity

  const share = Effect.gen(function*() {
    const reply = (yield* connection.evaluate(
      shareSettings,
      [keys.settings(group)],
      [encode(membership), Math.ceil(leasesToCount * leaseMillis)]
    )) as ReadonlyArray<string>
    dueAt = monotonic() + leaseMillis
    settings = reply.flatMap((text) => decode(text) ?? [])
  }).pipe(
    // Another program wrote the key: each member goes by its own settings.
    Effect.catchIf((error) => error.message.startsWith("WRONGTYPE "), () =>
      Effect.sync(() => {
        dueAt = monotonic() + leaseMillis
        settings = [membership]
      }))
  )

  return {
    /** Shares this member's settings and reads those of the others, once in a lease. */
    refresh: Effect.suspend(() => monotonic() < dueAt ? Effect.void : share),

    /** After this long without renewal a delivery is taken over: the longest lease of all members. */
    claimMillis: () => settings.reduce((longest, other) => Math.max(longest, other.leaseMillis), leaseMillis),

    settings: () => settings
  }
}

export type SharedSettings = ReturnType<typeof make>
