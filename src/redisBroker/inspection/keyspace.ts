/** Checks of the keys of a page of SCAN: unknown keys, wrong types, and keys that nothing needs any more. */
import { Effect } from "effect"
import type { BrokerError } from "../../Broker.ts"
import type { Command } from "../../Redis.ts"
import type { Suspect } from "../../broker/inspection.ts"
import type { Found } from "../keys.ts"
import { noExpiry } from "../scripts/checks/noExpiry.ts"
import { orphanRecord } from "../scripts/checks/orphanRecord.ts"
import { orphanTrials } from "../scripts/checks/orphanTrials.ts"
import { unlistedRetries } from "../scripts/checks/unlistedRetries.ts"
import type { Checks } from "./check.ts"
import type { Registry } from "./registry.ts"
import { brokenChannel, unregistered } from "./registry.ts"

/** A deduplication window that would never end is ended after this time: the longest that a publish asks for by default. */
const windowMillis = 604_800_000

export interface Key {
  readonly key: string
  readonly found: Found
}

export const keys = (
  checks: Checks,
  registry: Registry,
  shardOf: (channel: string) => number,
  some: ReadonlyArray<Key>
): Effect.Effect<ReadonlyArray<Suspect>, BrokerError> =>
  Effect.gen(function*() {
    const { ask, keys, report, suspect } = checks
    const { shard } = keys
    const isTimed = ({ kind }: Found) =>
      kind === "seen" || kind === "answer" || kind === "removed" || kind === "janitor" || kind === "retention" ||
      kind === "metrics"
    const replies = yield* ask(some.flatMap(({ found: { kind, parts }, found, key }): ReadonlyArray<Command> => [
      ["type", key],
      isTimed(found)
        ? ["pttl", key]
        : kind === "retry"
        ? ["sismember", keys.retries(parts[0]!), parts[1]!]
        : ["exists", key]
    ]))
    const typeOf = (key: string) => Effect.map(ask([["type", key]]), ([type]) => String(type))
    const isThere = (key: string) => Effect.map(typeOf(key), (type) => type !== "none")
    const suspects: Array<Suspect> = []
    for (const [i, { found, key }] of some.entries()) {
      const [type, second] = [String(replies[2 * i]), replies[2 * i + 1]]
      const { kind, parts } = found
      const [first = "", last = first] = parts
      if (type === "none") continue
      if (kind === undefined) {
        suspects.push(report({
          kind: "UnknownKey",
          key,
          message: "the key is none of Rotif's: another program wrote it, or another version, and it can be removed"
        }, isThere(key)))
        continue
      }
      if (found.type !== undefined && type !== found.type) {
        suspects.push(report({
          kind: "WrongType",
          key,
          message: `the key is a ${type} and must be a ${found.type}: what needs it fails until it is removed`
        }, Effect.map(typeOf(key), (now) => now !== "none" && now !== found.type)))
        continue
      }
      const hasChannel = kind === "log" || kind === "retry" || kind === "bodies" || kind === "trials" || kind === "seen"
      const channel = kind === "log" || kind === "seen" ? first : last
      if (hasChannel && shardOf(channel) !== shard) {
        suspects.push(report({
          kind: "Misplaced",
          key,
          channel,
          message: `the channel belongs to shard ${
            shardOf(channel)
          }: nobody looks for it here. Was the number of shards changed?`
        }, isThere(key)))
      } else if (isTimed(found) && second === -1) {
        suspects.push(suspect(
          {
            kind: "NoExpiry",
            key,
            message: kind === "seen"
              ? "a deduplication window that never ends: what is published under its id is dropped as a duplicate"
              : kind === "answer"
              ? "the answer of a call that would be kept for ever"
              : kind === "removed"
              ? "the removal of a group that would be kept for ever"
              : "a duty is given to one process for ever",
            repair: kind === "seen" ? "ends it after a week" : "ends it"
          },
          noExpiry,
          [key],
          [kind === "seen" ? windowMillis : 0]
        ))
      } else if (kind === "log" && !registry.channels.has(first)) {
        suspects.push(brokenChannel(checks, first, "name"))
      } else if (kind === "retry" && second === 0) {
        suspects.push(suspect(
          {
            kind: "UnlistedRetries",
            key,
            group: first,
            channel: last,
            message: "messages are ready again, and the group does not know of their stream",
            repair: "makes it known"
          },
          unlistedRetries,
          [key, keys.retries(first), keys.meta],
          [first, last, keys.events]
        ))
      } else if (kind === "trials") {
        suspects.push(suspect(
          {
            kind: "OrphanRecord",
            key,
            group: first,
            channel: last,
            message: "it tells of deliveries that are handed out to nobody",
            repair: "forgets them"
          },
          orphanTrials,
          [key, keys.log(last), keys.retry(first, last)],
          [first]
        ))
      } else if (kind === "floors" && !registry.groups.has(first)) {
        suspects.push(unregistered(checks, key, first, undefined, isThere(key)))
      } else if ((kind === "members" || kind === "once" || kind === "olderonce") && !registry.groups.has(first)) {
        suspects.push(suspect(
          {
            kind: "OrphanRecord",
            key,
            group: first,
            message: "it is kept for a group that is gone",
            repair: "removes it, if nothing else of the group is left"
          },
          orphanRecord,
          [keys.groups, keys.floors(first), keys.retries(first), key],
          [first]
        ))
      }
    }
    return suspects
  })
