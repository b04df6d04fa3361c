/**
 * Transactions on Redis: the script that applies messages and writes as a whole, for a member's commit and for the outbox.
 *
 * A script reaches one slot. What a transaction publishes to a channel of another shard goes into the outbox of its own shard with
 * everything else, and is relayed from there: in order, behind a fence in the target's shard that lets each entry pass once.
 */
import { Effect } from "effect"
import type { Commit, CommitRefused, Committed, NewMessage, Write } from "../../Broker.ts"
import type { Connection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import { noPositionLeft, notAnInteger, wrongType } from "../../broker/commitRefused.ts"
import * as Entry from "../entry.ts"
import { nextCall } from "../evidence.ts"
import type { Keys } from "../keys.ts"
import { waitingMember } from "../keys.ts"
import { commit as commitScript } from "../scripts/member/commit.ts"
import { charactersIn, Steps } from "../steps.ts"
import { fieldOf, Lease } from "./lease.ts"
import type { RedisMarks } from "./once.ts"

/** Where a message goes, as far as this process knows. */
export interface Target {
  readonly log: string
}

/** What the broker knows of channels. */
export interface Channels {
  readonly shardOf: (channel: string) => number
  readonly keysOf: (shard: number) => Keys
  readonly connectionOf: (shard: number) => Connection
  /** Creates the channel where this process has not seen it. */
  readonly target: (message: NewMessage, isRelayed: boolean) => Effect.Effect<Target, RedisError>
  /** Tells what this program knows of a channel whose messages others bring there. */
  readonly announce: (message: NewMessage) => void
  readonly forget: (channel: string) => void
}

type Fence = readonly [
  kind: string,
  who: string,
  position: string,
  mark: string,
  token: string,
  channel: string,
  crashes: number,
  isRetry: 0 | 1,
  doneMillis: number
]

/** Collects the keys and arguments of the script. */
const builder = (fenceKeys: readonly [string, string, string, string], fence: Fence, events: string) => {
  const keys: Array<string> = [...fenceKeys]
  const args: Array<string | number> = [...fence, events]
  const indexes = new Map<string, number>()
  const indexOf = (key: string) => {
    let index = indexes.get(key)
    if (index === undefined) {
      index = keys.push(key)
      indexes.set(key, index)
    }
    return index
  }
  const add = (name: string, key: string, values: ReadonlyArray<string | number>) => {
    args.push(name, indexOf(key), values.length, ...values)
  }
  return {
    keys,
    args,
    publish: (shard: Keys, target: Target, message: NewMessage) => {
      const { channel, due, id, window } = message
      const call = nextCall()
      const seen = [window?.millis ?? 0, window === undefined ? 0 : indexOf(shard.seen(channel, window.key))]
      if (due === undefined) {
        add("publish", target.log, [
          ...seen,
          `${call} ${id}`,
          ...Entry.logFields(message)
        ])
      } else {
        add("schedule", target.log, [
          ...seen,
          id,
          indexOf(shard.waiting),
          indexOf(shard.bodies("", channel)),
          waitingMember("", channel, id),
          "atMillis" in due ? Math.ceil(due.atMillis) : `+${Math.ceil(due.delayMillis)}`,
          message.replace === true ? 1 : 0,
          Entry.encodeBody(message, call),
          call
        ])
      }
    },
    /** Nothing is to be known any more of what the delivery was suspected of. */
    tried: (shard: Keys, group: string, lease: Lease) =>
      add("tried", shard.trials(group, lease.channel), [fieldOf(lease.source, lease.position)]),
    outbox: (shard: Keys, message: NewMessage) => add("outbox", shard.outbox, Entry.outboxFields(message, nextCall())),
    write: (write: Write) => {
      switch (write._tag) {
        case "Set":
          return add("set", write.key, [write.value])
        case "HashSet":
          return add("hset", write.key, Object.entries(write.fields).flat())
        case "Increment":
          return add("incrby", write.key, [write.by])
        case "Delete":
          return add("del", write.key, [])
      }
    }
  }
}

type Reply = readonly [outcome: string, key?: string, found?: string, expected?: string]

const refusalOf = ([outcome, key = "", found = "", expected = ""]: Reply): CommitRefused =>
  outcome === "type" ? wrongType(key, found, expected) : outcome === "full" ? noPositionLeft(key) : notAnInteger(key)

const isRefusal = ([outcome]: Reply): boolean => outcome === "type" || outcome === "full" || outcome === "number"

/** A log that is announced as missing again and again is deleted by somebody. */
const mostRepeats = 10

/** Runs the script; a channel that is not there yet is created, and the script run again. */
const run = Effect.fnUntraced(function*(
  channels: Channels,
  connection: Connection,
  messages: ReadonlyArray<NewMessage>,
  build: () => Effect.Effect<
    { readonly keys: ReadonlyArray<string>; readonly args: ReadonlyArray<string | number> },
    RedisError
  >,
  idempotent: boolean
): Effect.fn.Return<Reply, RedisError> {
  for (let i = 0; i < mostRepeats; i++) {
    const { args, keys } = yield* build()
    const reply = (yield* connection.evaluate(commitScript, keys, args, { idempotent })) as Reply
    if (reply[0] !== "unknown") return reply
    for (const message of messages) channels.forget(message.channel)
  }
  return yield* new RedisError({
    reason: "Unavailable",
    command: "commit",
    message: "the log of a channel vanishes as often as it is created"
  })
})

export interface Setup {
  readonly channels: Channels
  readonly keys: Keys
  readonly group: string
  readonly marks: RedisMarks
  /** Something was settled in this stream. */
  readonly onSettled: (stream: string) => void
}

/** Applies a transaction together with the end of its delivery. */
const commitOne = Effect.fnUntraced(function*(
  { channels, group, keys: shard, marks, onSettled }: Setup,
  { delivery, messages, writes }: Commit
): Effect.fn.Return<Committed, RedisError> {
  if (!(delivery instanceof Lease)) return "lost"
  const lease = delivery
  if (lease.source.held.get(lease.position) !== lease || lease.mark === "") return "lost"
  const reply = yield* run(
    channels,
    channels.connectionOf(shard.shard),
    messages,
    Effect.fnUntraced(function*() {
      const script = builder(
        [lease.source.key, shard.once(group), shard.olderOnce(group), shard.counts],
        [
          "ack",
          group,
          lease.position,
          lease.mark,
          lease.token,
          lease.channel,
          lease.isVanished ? -1 : lease.count - 1,
          lease.source.isRetry ? 1 : 0,
          marks.doneMillis
        ],
        shard.events
      )
      if (lease.isSuspect) script.tried(shard, group, lease)
      for (const message of messages) {
        if (channels.shardOf(message.channel) !== shard.shard) {
          channels.announce(message)
          script.outbox(shard, message)
        } else script.publish(shard, yield* channels.target(message, false), message)
      }
      for (const write of writes) script.write(write)
      return script
    }),
    false
  ).pipe(Effect.tapError((error) =>
    Effect.sync(() => {
      if (error.reason === "ConnectionLost") lease.uncertain = true
    })
  ))
  const outcome = reply[0]
  if (isRefusal(reply)) return refusalOf(reply)
  if (outcome !== "done" && !(outcome === "already" && lease.uncertain)) return "lost"
  // Told so when all of them have ended: if one fails, this comes once more.
  lease.uncertain = true
  onSettled(lease.source.key)
  return "done"
})

/** Applies each commit by itself, and to its end: one that was cut off would not be known to be uncertain. */
export const commit = Effect.fnUntraced(function*(setup: Setup, commits: ReadonlyArray<Commit>) {
  const results = yield* Effect.forEach(commits, (one) => Effect.result(commitOne(setup, one)), {
    concurrency: "unbounded"
  })
  const outcomes = yield* Effect.forEach(results, Effect.fromResult)
  for (const [i, { delivery }] of commits.entries()) {
    if (!(delivery instanceof Lease) || typeof outcomes[i] !== "string") continue
    delivery.source.held.delete(delivery.position)
    setup.marks.leave(delivery)
  }
  return outcomes
})

/** The channels that refuse what is relayed to them, by the connection of the outbox: said once. */
const told = new WeakMap<Connection, ReadonlySet<number | string>>()

/** What is in an outbox. */
type Item = readonly [position: string, message: NewMessage, name: string]

/**
 * Relays messages of a shard's outbox, in order; how many have left it. Any number of processes may do it at once: what has
 * arrived is remembered in the target's shard, and a second arrival changes nothing. A channel that refuses, or a shard that cannot be
 * reached, holds up nobody but itself.
 */
export const relay = Effect.fnUntraced(function*(channels: Channels, shard: number, limit: number) {
  const keys = channels.keysOf(shard)
  const connection = channels.connectionOf(shard)
  /** By shard, and by channel where only that refuses. */
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
      const target = channels.shardOf(message.channel)
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
          Effect.result(deliver(channels, shard, target, items, gone, failures)),
          (result) => [target, result] as const
        ),
      { concurrency: "unbounded" }
    )
    for (const [target, result] of results) if (result._tag === "Failure") failures.set(target, result.failure)
    if (gone.length > 0) yield* connection.send(["xdel", keys.outbox, ...gone], { idempotent: true })
    moved += gone.length
    if (entries.length < count) break
    // What is held up stays where it is, and is passed over.
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

/** Brings messages to one shard, in order. Behind one that does not arrive the others of its channel wait. */
const deliver = Effect.fnUntraced(function*(
  channels: Channels,
  shard: number,
  target: number,
  items: ReadonlyArray<Item>,
  gone: Array<string>,
  failures: Map<number | string, RedisError>
): Effect.fn.Return<void, RedisError> {
  const there = channels.keysOf(target)
  const { outbox } = channels.keysOf(shard)
  const send = ([position, message, name]: Item, isThere: boolean) =>
    run(
      channels,
      channels.connectionOf(target),
      [message],
      Effect.fnUntraced(function*() {
        const arrived = there.arrived(shard)
        const script = builder(
          [there.relayed, arrived, arrived, arrived],
          ["relay", String(shard), position, name, isThere ? "1" : "", "", 0, 0, 0],
          there.events
        )
        script.publish(there, yield* channels.target(message, true), message)
        return script
      }),
      true
    )
  const bring = Effect.fnUntraced(function*(item: Item): Effect.fn.Return<void, RedisError> {
    const [position] = item
    let reply = yield* send(item, false)
    if (reply[0] === "behind") {
      const found = (yield* channels.connectionOf(shard).send(["xrange", outbox, position, position], {
        idempotent: true
      })) as ReadonlyArray<readonly [string, ReadonlyArray<string>]>
      // What others have brought there long ago has left the outbox.
      if (found.some(([, fields]) => Entry.outboxName(position, fields) === item[2])) reply = yield* send(item, true)
    }
    if (isRefusal(reply)) {
      return yield* new RedisError({ reason: "Refused", command: "relay", message: refusalOf(reply).message })
    }
    gone.push(position)
  })
  for (const item of items) {
    const [, { channel }] = item
    if (failures.has(channel)) continue
    yield* Effect.catchIf(
      bring(item),
      ({ reason }) => reason === "Refused",
      (error) => Effect.sync(() => void failures.set(channel, error))
    )
  }
})
