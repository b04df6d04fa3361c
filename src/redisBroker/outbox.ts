/**
 * The outbox of a shard: messages that transactions have published to channels of other shards.
 *
 * They are relayed in order, behind a fence in the target's shard that lets each entry pass once.
 */
import { Effect } from "effect"
import type { NewMessage } from "../broker/publishing.ts"
import type { Connection } from "../redis/connection.ts"
import { RedisError, refusedCommand } from "../redis/protocol.ts"
import type { Channels } from "./channels.ts"
import * as Entry from "./entry.ts"
import { commit } from "./scripts/member/commit.ts"
import type { Shards } from "./shards.ts"
import { charactersIn, Steps } from "./stepSize.ts"
import { builder, isRefusal, refusalOf, run } from "./transactionScript.ts"

/** The channels that refuse messages, by the connection of the outbox: each is logged once. */
const told = new WeakMap<Connection, ReadonlySet<number | string>>()

/** Relayed again, a message is found to have arrived. */
const relayScript = { ...commit, isIdempotent: true }

/** An entry of an outbox. */
type Item = readonly [position: string, message: NewMessage, name: string]

/**
 * Relays messages of a shard's outbox in order, and returns how many have left it.
 *
 * Any number of processes may do it at once: the target's shard remembers the arrivals, and a second one changes nothing. A channel that refuses, or
 * a shard that cannot be reached, holds up no other.
 */
export const relay = Effect.fnUntraced(function*(shards: Shards, channels: Channels, shard: number, limit: number) {
  const keys = shards.keysOf(shard)
  const connection = shards.connectionOf(shard)
  /** By shard, or by channel where only the channel refuses. */
  const failures = new Map<number | string, RedisError>()
  const steps = new Steps(limit)
  let moved = 0
  let from = "-"
  while (moved < limit) {
    const count = steps.size
    const entries = (yield* connection.send(["xrange", keys.outbox, from, "+", "COUNT", count], {
      idempotent: true
    })) as ReadonlyArray<readonly [string, ReadonlyArray<string>]>
    steps.took(entries.length, charactersIn(entries))
    const gone: Array<string> = []
    const byShard = new Map<number, Array<Item>>()
    for (const [position, fields] of entries) {
      const message = Entry.decodeOutbox(fields)
      if (message === undefined) {
        yield* Effect.logError(`rotif: the entry ${position} of ${keys.outbox} is no message and was removed`)
        gone.push(position)
        continue
      }
      if (failures.has(message.channel)) continue
      const target = shards.shardOf(message.channel)
      if (failures.has(target)) continue
      const same = byShard.get(target)
      const item: Item = [position, message, Entry.outboxName(position, fields)]
      if (same === undefined) byShard.set(target, [item])
      else same.push(item)
    }
    const results = yield* Effect.forEach(
      [...byShard],
      ([target, items]) =>
        Effect.map(
          Effect.result(deliver(shards, channels, shard, target, items, gone, failures)),
          (result) => [target, result] as const
        ),
      { concurrency: "unbounded" }
    )
    for (const [target, result] of results) if (result._tag === "Failure") failures.set(target, result.failure)
    if (gone.length > 0) yield* connection.send(["xdel", keys.outbox, ...gone], { idempotent: true })
    moved += gone.length
    if (entries.length < count) break
    // Entries that are held up stay, and are passed over.
    from = `(${entries.at(-1)![0]}`
  }
  for (const [target, failure] of failures) if (typeof target === "number") return yield* Effect.fail(failure)
  const known = told.get(connection)
  for (const [channel, { message }] of failures) {
    if (known?.has(channel) === true) continue
    yield* Effect.logWarning(
      `rotif: what transactions have published to channel "${channel}" waits in ${keys.outbox}: ${message}`
    )
  }
  told.set(connection, new Set(failures.keys()))
  return moved
})

/** Delivers messages to one shard, in order. Behind a message that does not arrive the others of its channel wait. */
const deliver = Effect.fnUntraced(function*(
  shards: Shards,
  channels: Channels,
  shard: number,
  target: number,
  items: ReadonlyArray<Item>,
  gone: Array<string>,
  failures: Map<number | string, RedisError>
): Effect.fn.Return<void, RedisError> {
  const there = shards.keysOf(target)
  const { outbox } = shards.keysOf(shard)
  const send = ([position, message, name]: Item, isThere: boolean) =>
    run(
      channels,
      shards.connectionOf(target),
      [message],
      Effect.fnUntraced(function*() {
        const arrived = there.arrived(shard)
        const script = builder(
          [there.relayed, arrived, arrived, arrived],
          ["relay", String(shard), position, name, isThere ? "1" : "", "", 0, 0, 0],
          there.events
        )
        script.publish(there, (yield* channels.target(message, true)).log, message)
        return script
      }),
      relayScript
    )
  const deliverOne = Effect.fnUntraced(function*(item: Item): Effect.fn.Return<void, RedisError> {
    const [position] = item
    let reply = yield* send(item, false)
    if (reply[0] === "behind") {
      const found = (yield* shards.connectionOf(shard).send(["xrange", outbox, position, position], {
        idempotent: true
      })) as ReadonlyArray<readonly [string, ReadonlyArray<string>]>
      // A message that another process has delivered long ago has left the outbox.
      if (found.some(([, fields]) => Entry.outboxName(position, fields) === item[2])) reply = yield* send(item, true)
    }
    if (isRefusal(reply)) {
      return yield* refusedCommand("relay", refusalOf(reply).message)
    }
    gone.push(position)
  })
  for (const item of items) {
    const [, { channel }] = item
    if (failures.has(channel)) continue
    yield* Effect.catchIf(
      deliverOne(item),
      ({ reason }) => reason === "Refused",
      (error) => Effect.sync(() => void failures.set(channel, error))
    )
  }
})
