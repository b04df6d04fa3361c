/** What the members of a group are set to, as far as they have told lately. */
import { Effect } from "effect"
import type { GroupSettings, Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import * as Agreement from "../../broker/groupSettings.ts"
import type { Keys } from "../keys.ts"
import { shareSettings } from "../scripts/member/shareSettings.ts"

/** So many leases after a member has told what it is set to it counts no more: what it held has been taken over by then. */
const leasesToCount = 3

export interface RedisAgreement {
  /** Tells and asks, once in a lease. */
  readonly refresh: Effect.Effect<void, RedisError>
  /** After this long without renewal a delivery is taken over: the longest lease of all. */
  readonly claimMillis: () => number
  readonly settings: () => ReadonlyArray<GroupSettings>
}

export const make = ({ connection, keys, membership, monotonic }: {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly monotonic: () => number
}): RedisAgreement => {
  const { group, leaseMillis } = membership
  let settings: ReadonlyArray<GroupSettings> = [membership]
  let dueAt = -Infinity

  const ask = Effect.gen(function*() {
    const reply = (yield* connection.evaluate(
      shareSettings,
      [keys.settings(group)],
      [Agreement.encode(membership), Math.ceil(leasesToCount * leaseMillis)],
      { idempotent: true }
    )) as ReadonlyArray<string>
    dueAt = monotonic() + leaseMillis
    settings = reply.flatMap((text) => Agreement.decode(text) ?? [])
  }).pipe(
    // Another program's: everybody goes by what he is set to himself.
    Effect.catchIf((error) => error.message.startsWith("WRONGTYPE "), () =>
      Effect.sync(() => {
        dueAt = monotonic() + leaseMillis
        settings = [membership]
      }))
  )

  return {
    refresh: Effect.suspend(() => monotonic() < dueAt ? Effect.void : ask),
    claimMillis: () => settings.reduce((longest, other) => Math.max(longest, other.leaseMillis), leaseMillis),
    settings: () => settings
  }
}
