/**
 * Removing a group from a shard: its registration first, then what it has on each channel, then its waiting messages.
 *
 * Every step can be repeated. After a crash in between, a second call removes the rest.
 */
import { Effect } from "effect"
import type { Selector } from "../broker/selector.ts"
import { patternsOf, readingOf } from "../internal/pattern.ts"
import type { Connection } from "../redis/connection.ts"
import { RedisError } from "../redis/protocol.ts"
import type { Keys } from "./keys.ts"
import { gateKeys, registrationsOf } from "./keys.ts"
import { removeGroup as removeScript } from "./scripts/member/removeGroup.ts"
import { unregisterGroup } from "./scripts/member/unregisterGroup.ts"

/** A consumer that is away for longer than this misses the removal of its group, and creates the group again. */
const removalMillis = 86_400_000

/** Waiting messages that one step looks at. */
const waitingPerStep = 500

const again = { idempotent: true } as const

const removeFrom = Effect.fnUntraced(function*(connection: Connection, keys: Keys, group: string, channel: string) {
  const removeSome = (isFirst: boolean) =>
    connection.evaluate(
      removeScript,
      [
        keys.log(channel),
        keys.retry(group, channel),
        keys.retries(group),
        keys.floors(group),
        keys.meta,
        keys.counts,
        keys.bodies(group, channel),
        keys.trials(group, channel),
        keys.settled,
        ...gateKeys(keys, group, channel)
      ],
      [group, channel, isFirst ? 1 : 0]
    )
  let outcome = yield* removeSome(true)
  while (outcome === 0) outcome = yield* removeSome(false)
})

const removeWaiting = Effect.fnUntraced(function*(
  connection: Connection,
  keys: Keys,
  group: string,
  channels: ReadonlySet<string>
) {
  let cursor = "0"
  do {
    const [next, page] = (yield* connection.send(
      ["zscan", keys.waiting, cursor, "COUNT", waitingPerStep],
      again
    )) as readonly [string, ReadonlyArray<string>]
    cursor = next
    const waiting = page.filter((text, i) => {
      const [owner, channel = ""] = text.split("\n")
      return i % 2 === 0 && owner === group && channels.has(channel)
    })
    if (waiting.length > 0) yield* connection.send(["zrem", keys.waiting, ...waiting], again)
  } while (cursor !== "0")
})

export const removeGroup = Effect.fnUntraced(function*(
  connection: Connection,
  keys: Keys,
  group: string,
  selector: Selector
): Effect.fn.Return<void, RedisError> {
  // First: its consumers have to learn why the rest is gone.
  yield* connection.evaluate(
    unregisterGroup,
    [keys.meta, keys.groups, keys.removed(group), keys.orderings],
    [group, removalMillis, keys.events, ...patternsOf(selector)]
  )
  const [fields, channels] = (yield* connection.pipeline([
    ["hkeys", keys.groups],
    ["hkeys", keys.channels]
  ])) as ReadonlyArray<unknown>
  for (const reply of [fields, channels]) if (reply instanceof RedisError) return yield* reply
  const left = registrationsOf(fields).filter((one) => one.group === group)
  const matches = readingOf(selector)
  const removed = (channels as Array<string>).filter((name) => matches(name) && !left.some(({ reads }) => reads(name)))
  for (const channel of removed) yield* removeFrom(connection, keys, group, channel)
  yield* connection.send(["del", keys.members(group), keys.settings(group)], again)
  yield* removeWaiting(connection, keys, group, new Set(removed))
  if (left.length === 0) {
    yield* connection.send(
      ["unlink", keys.once(group), keys.olderonce(group), keys.taken(group), keys.resting(group)],
      again
    )
  }
})
