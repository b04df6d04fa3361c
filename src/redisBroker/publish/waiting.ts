/**
 * Waiting messages on Redis: one sorted set of names by due time, and a hash of their bodies for each group and channel (without a group: for
 * the first delivery), so that counting them is one HLEN. `promotion.ts` moves them into their streams.
 */
import { Effect } from "effect"
import type { Appended, BrokerError, NewMessage } from "../../Broker.ts"
import { RedisError } from "../../Redis.ts"
import { windowOf } from "../../broker/idWindow.ts"
import type { Place, Reference, ScheduledMessage, ScheduledStore } from "../../broker/scheduled.ts"
import * as Entry from "../entry.ts"
import type { Evidence } from "../callOutcome.ts"
import { answer, duplicateOf, keptMillis, nextCall } from "../callOutcome.ts"
import type { Keys } from "../keys.ts"
import { waitingMember, waitingParts } from "../keys.ts"
import { cancel } from "../scripts/publish/cancel.ts"
import { listScheduled } from "../scripts/publish/listScheduled.ts"
import { reschedule } from "../scripts/publish/reschedule.ts"
import { schedule } from "../scripts/publish/schedule.ts"
import type { Shards } from "../shards.ts"
import { Steps } from "../stepSize.ts"
import type { Route } from "./route.ts"

/** One step of a list passes over at most this many entries of the sorted set. */
const lookPage = 1_000

const outcomeOf = ([outcome, value]: readonly [string, string]): Appended =>
  outcome === "scheduled"
    ? { _tag: "Scheduled", dueAtMillis: Number(value) }
    : outcome === "stored"
    ? { _tag: "Stored", position: value }
    : duplicateOf(value)

/**
 * Stores scheduled messages of one channel in one step; `undefined`: the channel has no log.
 *
 * A repetition is safe: the script gives it the same answer. `onSend` gets the evidence of each message, for a reply that is lost.
 */
export const store = Effect.fnUntraced(function*(
  { keysOf, shardOf }: Shards,
  messages: ReadonlyArray<NewMessage>,
  route: Route,
  onSend: (message: NewMessage, evidence: Evidence) => void
) {
  const { channel } = messages[0]!
  const keys = keysOf(shardOf(channel))
  const windows: Array<string> = []
  const call = nextCall()
  const told = keys.answer(call)
  for (const [i, message] of messages.entries()) {
    onSend(
      message,
      answer(told, (value) => outcomeOf((JSON.parse(value) as ReadonlyArray<readonly [string, string]>)[i]!))
    )
  }
  const args = messages.flatMap((message) => {
    if (message.window !== undefined) windows.push(keys.seen(channel, message.window.key))
    return [
      message.id,
      Entry.encodeDue(message.due!),
      Entry.encodeBody(message, call),
      message.replace === true ? 1 : 0,
      message.window?.millis ?? 0,
      windows.length + 4
    ]
  })
  const reply = (yield* route.connectionOf(keys.shard).evaluate(
    schedule,
    [keys.waiting, keys.bodies("", channel), keys.log(channel), told, ...windows],
    [keys.events, waitingMember("", channel, ""), call, keptMillis, ...args]
  )) as readonly ["unknown"] | ReadonlyArray<readonly [string, string]>
  if (reply[0] === "unknown") return undefined
  return (reply as ReadonlyArray<readonly [string, string]>).map((one, i): Appended => {
    if (one[0] === "duplicate") route.onFound?.(messages[i]!)
    return outcomeOf(one)
  })
})

export const make = ({ all, connectionOf, fail, keysOf, shardOf }: Shards): ScheduledStore => {
  /** Changes a waiting message. Only its body names its window: most have the window of their id, or none. */
  const change = (
    operation: "cancel" | "reschedule",
    { channel, id }: Reference,
    run: (keys: Keys, window: string, told: string, key: string) => Effect.Effect<unknown, RedisError>
  ): Effect.Effect<boolean, BrokerError> =>
    Effect.gen(function*() {
      const keys = keysOf(shardOf(channel))
      const told = keys.answer(nextCall())
      let { key } = windowOf(id)
      while (true) {
        const reply = yield* run(keys, keys.seen(channel, key), told, key)
        if (typeof reply !== "string") return reply === 1
        key = reply
      }
    }).pipe(Effect.mapError(fail(operation)))

  const list = Effect.fnUntraced(function*(
    shard: number,
    { after, channel, limit }: Parameters<ScheduledStore["list"]>[1]
  ) {
    const keys = keysOf(shard)
    const connection = connectionOf(shard)
    const prefix = channel === undefined ? "\n" : waitingMember("", channel, "")
    const places: Array<Place> = []
    let score: string | number = after?.dueAtMillis ?? ""
    let member: string | undefined = after === undefined ? "" : waitingMember("", after.channel, after.id)
    // Messages that wait for a group are passed over.
    while (places.length === 0 && member !== undefined) {
      const reply: readonly [ReadonlyArray<string>, string?, string?] = (yield* connection.evaluate(
        listScheduled,
        [keys.waiting],
        [prefix, score, member, limit, lookPage]
      )) as readonly [ReadonlyArray<string>, string?, string?]
      const [found] = reply
      for (let i = 0; i < found.length; i += 2) {
        // A name that another program wrote is passed over.
        const [, channel, id] = waitingParts(found[i + 1]!) ?? []
        if (channel !== undefined && id !== undefined) places.push({ channel, id, dueAtMillis: Number(found[i]) })
      }
      score = reply[1] ?? ""
      member = reply[2]
    }
    const bodies: Array<unknown> = []
    const reading = new Steps(places.length)
    while (bodies.length < places.length) {
      const some = yield* connection.pipeline(
        places.slice(bodies.length, bodies.length + reading.size).map(({ channel, id }) => [
          "hget",
          keys.bodies("", channel),
          id
        ])
      )
      reading.took(
        some.length,
        some.reduce<number>((sum, body) => sum + (typeof body === "string" ? body.length : 0), 0)
      )
      bodies.push(...some)
    }
    const messages: Array<ScheduledMessage> = []
    for (const [i, place] of places.entries()) {
      const found = bodies[i]
      const body = typeof found === "string" ? Entry.decodeBody(found) : undefined
      if (found instanceof RedisError && found.reason !== "Refused") return yield* found
      if (body !== undefined) {
        messages.push({
          ...place,
          payload: body.payload,
          headers: body.headers ?? Entry.none,
          params: body.params ?? Entry.none,
          expiresInMillis: body.expiresInMillis,
          orderingKey: body.orderingKey
        })
      }
    }
    return { messages, next: member === undefined ? undefined : places.at(-1) }
  })

  const count = Effect.fnUntraced(function*(channel: string | undefined) {
    const lengths = yield* Effect.forEach(
      channel === undefined ? all : [keysOf(shardOf(channel))],
      Effect.fnUntraced(function*(keys) {
        const connection = connectionOf(keys.shard)
        const channels = channel === undefined
          ? (yield* connection.send(["hkeys", keys.channels], { idempotent: true })) as ReadonlyArray<string>
          : [channel]
        const replies = yield* connection.pipeline(channels.map((name) => ["hlen", keys.bodies("", name)]))
        for (const reply of replies) if (reply instanceof RedisError) return yield* reply
        return (replies as ReadonlyArray<number>).reduce((sum, length) => sum + length, 0)
      }),
      { concurrency: 16 }
    )
    return lengths.reduce((sum, length) => sum + length, 0)
  })

  return {
    cancel: (message) =>
      change("cancel", message, (keys, window, told, key) =>
        connectionOf(keys.shard).evaluate(
          cancel,
          [keys.waiting, keys.bodies("", message.channel), window, told],
          [waitingMember("", message.channel, message.id), message.id, key, keptMillis]
        )),
    reschedule: (message, due) =>
      change("reschedule", message, (keys, window, told, key) =>
        connectionOf(keys.shard).evaluate(
          reschedule,
          [keys.waiting, keys.bodies("", message.channel), keys.log(message.channel), window, told],
          [
            keys.events,
            waitingMember("", message.channel, message.id),
            message.id,
            Entry.encodeDue(due),
            key,
            keptMillis
          ]
        )),
    list: (shard, options) => Effect.mapError(list(shard, options), fail("list")),
    count: (channel) => Effect.mapError(count(channel), fail("count"))
  }
}
