/** Checks of the keys of a page of SCAN: unknown keys, wrong types, and keys that nothing needs any more. */
import { Effect } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import { usualMaxMillis } from "../../broker/idWindow.ts"
import type { Suspect } from "../../broker/inspection.ts"
import type { Found, Keys, Kind } from "../keys.ts"
import { noExpiry } from "../scripts/checks/noExpiry.ts"
import { orphanRecord } from "../scripts/checks/orphanRecord.ts"
import { orphanTrials } from "../scripts/checks/orphanTrials.ts"
import { unlistedRetries } from "../scripts/checks/unlistedRetries.ts"
import type { Checks } from "./check.ts"
import type { Registry } from "./registry.ts"
import { brokenChannel, unregistered } from "./registry.ts"

export interface Key {
  readonly key: string
  readonly found: Found
}

/** The keys that have a time to live, and what it means if one has none. */
const timed: Readonly<Partial<Record<Kind, string>>> = {
  seen: "a deduplication window that never ends: what is published under its id is dropped as a duplicate",
  answer: "the answer of a call that would be kept for ever",
  removed: "the removal of a group that would be kept for ever",
  janitor: "a duty is given to one process for ever",
  retention: "a duty is given to one process for ever",
  metrics: "a duty is given to one process for ever",
  storm: "a count of dead letters that would be kept for ever"
}

/** The keys that belong to a channel, and which of their parts names it. */
const channelPart: Readonly<Partial<Record<Kind, 0 | 1>>> = { log: 0, seen: 0, retry: 1, bodies: 1, trials: 1 }

/** What is asked about a key beside its type. */
const questionOf = (keys: Keys, { found: { kind, parts }, key }: Key): Command =>
  kind !== undefined && kind in timed
    ? ["pttl", key]
    : kind === "retry"
    ? ["sismember", keys.retries(parts[0]!), parts[1]!]
    : ["exists", key]

/** The suspect of a key, by its type and the answer to its question. */
const suspectOf = (
  checks: Checks,
  registry: Registry,
  shardOf: (channel: string) => number,
  { found, key }: Key,
  type: string,
  answer: unknown
): Suspect | undefined => {
  const { ask, keys, report, suspect } = checks
  const { kind, parts } = found
  const [first = "", last = first] = parts
  const typeNow = Effect.map(ask([["type", key]]), ([type]) => String(type))
  const isThere = Effect.map(typeNow, (type) => type !== "none")
  if (type === "none") return undefined
  if (kind === undefined) {
    const message = "the key is none of Rotif's: another program wrote it, or another version, and it can be removed"
    return report({ kind: "UnknownKey", key, message }, isThere)
  }
  if (found.type !== undefined && type !== found.type) {
    const message = `the key is a ${type} and must be a ${found.type}: what needs it fails until it is removed`
    return report(
      { kind: "WrongType", key, message },
      Effect.map(typeNow, (now) => now !== "none" && now !== found.type)
    )
  }
  const part = channelPart[kind]
  const channel = part === undefined ? undefined : parts[part]
  if (channel !== undefined && shardOf(channel) !== keys.shard) {
    const message = `the channel belongs to shard ${
      shardOf(channel)
    }: nobody looks for it here. Was the number of shards changed?`
    return report({ kind: "Misplaced", key, channel, message }, isThere)
  }
  if (kind in timed && answer === -1) {
    const isWindow = kind === "seen"
    return suspect(
      { kind: "NoExpiry", key, message: timed[kind]!, repair: isWindow ? "ends it after a week" : "ends it" },
      noExpiry,
      [key],
      [isWindow ? usualMaxMillis : 0]
    )
  }
  if (kind === "log" && !registry.channels.has(first)) return brokenChannel(checks, first, "name")
  if (kind === "retry" && answer === 0) {
    const message = "messages are ready again, and the group does not know of their stream"
    return suspect(
      { kind: "UnlistedRetries", key, group: first, channel: last, message, repair: "makes it known" },
      unlistedRetries,
      [key, keys.retries(first), keys.meta],
      [first, last, keys.events]
    )
  }
  if (kind === "trials") {
    const message = "it tells of deliveries that are handed out to nobody"
    return suspect(
      { kind: "OrphanRecord", key, group: first, channel: last, message, repair: "forgets them" },
      orphanTrials,
      [key, keys.log(last), keys.retry(first, last)],
      [first]
    )
  }
  if (registry.groups.has(first)) return undefined
  if (kind === "floors") return unregistered(checks, key, first, undefined, isThere)
  if (kind === "members" || kind === "resting" || kind === "once" || kind === "olderonce") {
    const message = "it is kept for a group that is gone"
    const repair = "removes it, if nothing else of the group is left"
    return suspect(
      { kind: "OrphanRecord", key, group: first, message, repair },
      orphanRecord,
      [keys.groups, keys.floors(first), keys.retries(first), key],
      [first]
    )
  }
  return undefined
}

/** Finds the suspects among some keys of a shard. */
export const keys = (
  checks: Checks,
  registry: Registry,
  shardOf: (channel: string) => number,
  some: ReadonlyArray<Key>
): Effect.Effect<ReadonlyArray<Suspect>, BrokerError> =>
  Effect.map(
    checks.ask(some.flatMap((one): ReadonlyArray<Command> => [["type", one.key], questionOf(checks.keys, one)])),
    (replies) =>
      some.flatMap((one, i) =>
        suspectOf(checks, registry, shardOf, one, String(replies[2 * i]), replies[2 * i + 1]) ?? []
      )
  )
