/**
 * The registry of a shard, as a member of a group reads it: the channels, and the registration, retry streams and removals of the group.
 * What a fault or another program has removed from it is written again.
 */
import { Effect } from "effect"
import type { RedisError } from "../../Redis.ts"
import type { Ordering } from "../../broker/ordering.ts"
import { registrationField } from "../keys.ts"
import { unlistedRetries } from "../scripts/checks/unlistedRetries.ts"
import { listSources } from "../scripts/member/listSources.ts"
import { registerGroup } from "../scripts/member/registerGroup.ts"
import { createChannel } from "../scripts/publish/createChannel.ts"
import type { Removals } from "../attachment.ts"
import type { MemberContext } from "./context.ts"

/** What a member knows of the registry. */
export interface Registry {
  readonly version: string
  readonly channels: ReadonlyArray<string>
  /** The channels for which the group has a retry stream. */
  readonly retries: ReadonlyArray<string>
  /** 1 for each pattern that is registered, 0 for each that is not. */
  readonly registered: ReadonlyArray<number>
  /** The last removal of each pattern; empty if there was none. */
  readonly removals: ReadonlyArray<string>
}

/** Nothing: a comparison with it always gives the whole registry. */
export const unknown: Registry = { version: "", channels: [], retries: [], registered: [], removals: [] }

const orderingOf = (recorded: unknown): Ordering | undefined =>
  recorded === "block" || recorded === "none" ? recorded : undefined

export const make = (
  { connection, keys, membership: { group, ordering: asked } }: MemberContext,
  patterns: ReadonlyArray<string>,
  /** Called with the pauses of each reply. */
  onPauses: (reply: ReadonlyArray<string | number>) => void
) => {
  const fields = patterns.map((pattern) => registrationField(group, pattern))
  return {
    /** Reads the registry; `undefined` if it is as `known`. An item less than `known` has was removed, whatever the version. */
    read: (known: Registry): Effect.Effect<Registry | undefined, RedisError> =>
      Effect.map(
        connection.evaluate(
          listSources,
          [keys.meta, keys.channels, keys.groups, keys.retries(group), keys.removed(group), keys.paused],
          [known.version, known.channels.length, known.retries.length, ...fields]
        ),
        (reply) => {
          const [version, pauses, channels, retries = [], registered = [], removals = []] = reply as readonly [
            string,
            Array<string | number>,
            Array<string>?,
            Array<string>?,
            Array<number>?,
            Array<string>?
          ]
          onPauses(pauses)
          return channels === undefined ? undefined : { version, channels, retries, registered, removals }
        }
      ),

    /** Whether there are no pauses of any group. */
    isWithoutPauses: Effect.map(connection.send(["exists", keys.paused], { idempotent: true }), (found) => found === 0),

    /** Registers channels and creates their logs. */
    create: (channels: Iterable<string>) =>
      Effect.forEach(
        channels,
        (name) =>
          connection.evaluate(createChannel, [keys.meta, keys.channels, keys.log(name)], [name, "", keys.events]),
        { discard: true }
      ),

    /** Lists the retry streams of these channels again, where they exist and are not listed; returns their channels. */
    relist: (channels: ReadonlyArray<string>) =>
      Effect.filter(channels, (channel) =>
        Effect.map(
          connection.evaluate(
            unlistedRetries,
            [keys.retry(group, channel), keys.retries(group), keys.meta],
            ["repair", group, channel, keys.events]
          ),
          (reply) => reply === 1
        )),

    /** Returns how the group treats ordering keys; `undefined` when that is not decided. */
    ordering: Effect.map(connection.send(["hget", keys.orderings, group], { idempotent: true }), orderingOf),

    /** Registers the group. It does not when the group was removed since `removals` was read, or treats ordering keys in another way. */
    register: (removals: Removals) =>
      Effect.map(
        connection.evaluate(
          registerGroup,
          [keys.meta, keys.groups, keys.removed(group), keys.orderings],
          [JSON.stringify(removals), group, asked ?? "", ...fields]
        ),
        (reply) => {
          const [outcome, recorded] = reply as readonly [number, string]
          return { wasRemoved: outcome === -1, isRefused: outcome === -2, ordering: orderingOf(recorded) }
        }
      )
  }
}
