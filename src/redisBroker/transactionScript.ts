/**
 * The transaction script: applies messages and writes as a whole, for a member's commit and for the outbox.
 *
 * It is one call, built from a fence, which decides whether the transaction is applied, and its operations.
 */
import { Effect } from "effect"
import { noPositionLeft, notAnInteger, wrongType } from "../broker/commitRefused.ts"
import type { NewMessage } from "../broker/publishing.ts"
import type { CommitRefused, Write } from "../broker/transaction.ts"
import type { Connection } from "../redis/connection.ts"
import type { Script } from "../redis/protocol.ts"
import { RedisError, unavailable } from "../redis/protocol.ts"
import type { Channels } from "./channels.ts"
import * as Entry from "./entry.ts"
import { nextCall } from "./callOutcome.ts"
import type { Keys } from "./keys.ts"
import { waitingMember } from "./keys.ts"

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
export const builder = (fenceKeys: readonly [string, string, string, string], fence: Fence, events: string) => {
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
    publish: (shard: Keys, log: string, message: NewMessage) => {
      const { channel, due, id, window } = message
      const call = nextCall()
      const seen = [window?.millis ?? 0, window === undefined ? 0 : indexOf(shard.seen(channel, window.key))]
      if (due === undefined) {
        add("publish", log, [
          ...seen,
          `${call} ${id}`,
          ...Entry.logFields(message)
        ])
      } else {
        add("schedule", log, [
          ...seen,
          id,
          indexOf(shard.waiting),
          indexOf(shard.bodies("", channel)),
          waitingMember("", channel, id),
          Entry.encodeDue(due),
          message.replace === true ? 1 : 0,
          Entry.encodeBody(message, call),
          call
        ])
      }
    },
    /** Acknowledges a further delivery. */
    ack: (stream: string, values: ReadonlyArray<string | number>) => add("ack", stream, values),
    /** Frees an ordering key. */
    free: (busy: string, consumer: string, orderingKey: string, gate: ReadonlyArray<string>) =>
      add("free", busy, [consumer, orderingKey, ...gate.map(indexOf)]),
    /** Ends the trial of a suspected delivery. */
    tried: (trials: string, field: string) => add("tried", trials, [field]),
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

export type Reply = readonly [outcome: string, key?: string, found?: string, expected?: string]

export const refusalOf = ([outcome, key = "", found = "", expected = ""]: Reply): CommitRefused =>
  outcome === "type" ? wrongType(key, found, expected) : outcome === "full" ? noPositionLeft(key) : notAnInteger(key)

export const isRefusal = ([outcome]: Reply): boolean => outcome === "type" || outcome === "full" || outcome === "number"

/** The script runs at most this often: a log that is missing each time is deleted by another program. */
const mostRepeats = 10

/** Runs the script, and runs it again where the log of a channel was missing: `build` creates it. */
export const run = Effect.fnUntraced(function*(
  channels: Channels,
  connection: Connection,
  messages: ReadonlyArray<NewMessage>,
  build: () => Effect.Effect<
    { readonly keys: ReadonlyArray<string>; readonly args: ReadonlyArray<string | number> },
    RedisError
  >,
  script: Script
): Effect.fn.Return<Reply, RedisError> {
  for (let i = 0; i < mostRepeats; i++) {
    const { args, keys } = yield* build()
    const reply = (yield* connection.evaluate(script, keys, args)) as Reply
    if (reply[0] !== "unknown") return reply
    for (const message of messages) channels.forget(message.channel)
  }
  return yield* unavailable("commit", "the log of a channel vanishes as often as it is created")
})
