/** A recurring key that goes to a channel of another shard, while the process that defines it dies between any two of its commands. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Broker } from "rotif"
import { Redis } from "rotif"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import { brokerError } from "../../src/redisBroker/brokerError.ts"
import * as RedisRecurring from "../../src/redisBroker/recurring.ts"
import { createChannel as channelScript } from "../../src/redisBroker/scripts/publish/createChannel.ts"
import { freshPrefix } from "../contract/kit.ts"

const shardOf = (channel: string) => channel === "here" ? 0 : 1

/** Two shards, and a store that dies after so many commands. */
const namespace = Effect.gen(function*() {
  const redis = yield* Redis.Redis
  const prefix = freshPrefix()
  const shards = [Keys.make(prefix, 0), Keys.make(prefix, 1)]
  const storeFor = (commands: number) => {
    let left = commands
    const dying = <A>(effect: Effect.Effect<A, Redis.RedisError>) =>
      Effect.suspend(() =>
        left-- > 0
          ? effect
          : Effect.fail(new Redis.RedisError({ reason: "Unavailable", command: "x", message: "the process has died" }))
      )
    const connectionOf = (shard: number): Redis.Connection => {
      const connection = redis.connection(shards[shard]!.meta)
      return {
        generation: connection.generation,
        send: (...args) => dying(connection.send(...args)),
        pipeline: (...args) => dying(connection.pipeline(...args)),
        evaluate: (...args) => dying(connection.evaluate(...args))
      }
    }
    return RedisRecurring.make(
      { all: shards, keysOf: (shard) => shards[shard]!, shardOf, connectionOf, fail: brokerError },
      ({ channel }) => {
        const keys = shards[shardOf(channel)]!
        return connectionOf(keys.shard).evaluate(
          channelScript,
          [keys.meta, keys.channels, keys.log(channel)],
          [channel, "", keys.events]
        )
      },
      () => Effect.never
    )
  }
  const lengthOf = (channel: string) => {
    const keys = shards[shardOf(channel)]!
    return Effect.map(redis.connection(keys.meta).send(["xlen", keys.log(channel)], { idempotent: true }), Number)
  }
  return { storeFor, lengthOf }
})

const define = (store: Broker.RecurringStore, channel: string) =>
  store.upsert({
    key: "report",
    recurrence: "often",
    channel,
    payload: JSON.stringify(channel),
    headers: {},
    params: {},
    expiresInMillis: undefined
  }, 1)

/** What every ticker of both shards does, until nothing is due. */
const tickAll = Effect.fnUntraced(function*(store: Broker.RecurringStore) {
  for (let round = 0; round < 3; round++) {
    for (const shard of [0, 1]) {
      const { ticks } = yield* store.due(shard, 10)
      for (const { channel, key, nextAtMillis, recurrence } of ticks) {
        yield* store.advance(shard, {
          key,
          channel,
          recurrence,
          fromMillis: nextAtMillis,
          nextAtMillis: 9_000_000_000_000,
          messages: [{ id: `${key}@${nextAtMillis}`, window: { key: `${key}@${nextAtMillis}`, millis: 60_000 } }]
        })
      }
    }
  }
})

describe("Scheduler.recurring on shards", () => {
  it.live.each(Array.from({ length: 8 }, (_, commands) => [commands]))(
    "a key that changes its shard ticks once, where its process dies after %i commands",
    ([commands]) =>
      Effect.gen(function*() {
        const { lengthOf, storeFor } = yield* namespace
        const store = storeFor(Infinity)
        yield* define(store, "here")
        const outcome = yield* Effect.result(define(storeFor(commands!), "there"))
        yield* tickAll(store)
        const moved = yield* lengthOf("there")
        assert.strictEqual((yield* lengthOf("here")) + moved, 1)
        if (commands! > 0) assert.strictEqual(moved, 1, "the new definition holds from its first command on")
        const definitions = [...yield* store.list(0), ...yield* store.list(1)]
        assert.deepStrictEqual(definitions.map(({ channel }) => channel), [commands === 0 ? "here" : "there"])
        if (commands! > 6) assert.strictEqual(outcome._tag, "Success")
      }).pipe(Effect.provide(Redis.layer({ url: `redis://127.0.0.1:${inject("redisPort")}` })))
  )
})
