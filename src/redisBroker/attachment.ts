/** Attaching a group to streams of a shard: the keys and arguments of the script `attachGroup`. */
import type { Keys } from "./keys.ts"
import { gateKeys } from "./keys.ts"

/** A stream as the script takes it. The first of its keys is the stream. */
export interface Attachment {
  readonly keys: ReadonlyArray<string>
  readonly argument: string
}

/** The last removal of the group by each of its patterns, as it is recorded in Redis. */
export type Removals = ReadonlyArray<readonly [pattern: string, removal: string]>

/** The log of a channel; `others` are the other groups that are registered for it. */
export const ofLog = (keys: Keys, group: string, channel: string, others: ReadonlyArray<string> = []): Attachment => ({
  keys: [keys.log(channel), keys.retry(group, channel), keys.bodies(group, channel), ...gateKeys(keys, group, channel)],
  argument: [channel, ...others].join("\n")
})

export const ofRetryStream = (keys: Keys, group: string, channel: string): Attachment => {
  const key = keys.retry(group, channel)
  return { keys: [key, key, key, ...gateKeys(keys, group, channel)], argument: `\n${channel}` }
}

/** The keys and arguments of the script for some streams. */
export const callOf = (
  keys: Keys,
  group: string,
  position: string,
  removals: Removals,
  some: ReadonlyArray<Attachment>
): readonly [keys: ReadonlyArray<string>, args: ReadonlyArray<string>] => [
  [
    keys.floors(group),
    keys.counts,
    keys.settled,
    keys.removed(group),
    keys.taken(group),
    ...some.flatMap((one) => one.keys)
  ],
  [group, position, JSON.stringify(removals), ...some.map(({ argument }) => argument)]
]
