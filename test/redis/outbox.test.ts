/** Messages of transactions to other shards arrive once, whatever the clocks of the servers. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Redis, Rotif, Transaction } from "rotif"
import { inject } from "vitest"
import { until } from "../faults/Run.ts"
import * as Keys from "../../src/redisBroker/keys.ts"
import { freshPrefix, listen } from "../contract/kit.ts"

const channelIn = (shard: number) => {
  let n = 0
  while (Keys.shardOf(`c${n}`, 2) !== shard) n++
  return Channel.make(`c${n}`, { payload: Schema.String })
}
const [Here, There] = [channelIn(0), channelIn(1)]
/** In the shard of `There`. */
const Full = Channel.make(
  Array.from({ length: 20 }, (_, n) => `d${n}`).find((name) => Keys.shardOf(name, 2) === 1)!,
  { payload: Schema.String }
)
/** Two hours from now, and long ago. */
const [ahead, early] = [`${Date.now() + 7_200_000}-0`, "5-0"]

interface Place {
  readonly here: Keys.Keys
  readonly there: Keys.Keys
  readonly send: (...command: Redis.Command) => Effect.Effect<unknown, Redis.RedisError>
}

const test = (
  name: string,
  body: (place: Place) => Effect.Effect<unknown, unknown, Rotif.Services | Redis.Redis | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.suspend(() => {
      const prefix = freshPrefix()
      const [here, there] = [Keys.make(prefix, 0), Keys.make(prefix, 1)]
      const url = `redis://127.0.0.1:${inject("redisPort")}`
      return Effect.gen(function*() {
        const redis = yield* Redis.Redis
        const send = (...command: Redis.Command) => redis.connection(here.meta).send(command, { idempotent: false })
        yield* body({ here, there, send })
      }).pipe(
        Effect.scoped,
        Effect.provide(Rotif.layer({ url, prefix, shards: 2 })),
        Effect.provide(Redis.layer({ url }))
      )
    }))

const entry = (id: string, name: string): ReadonlyArray<string> => [
  "m",
  JSON.stringify({ id, channel: There.name }),
  "p",
  JSON.stringify(id),
  "n",
  name
]

describe("the outbox", () => {
  for (
    const [what, spoil] of [
      ["has no position left", ["xadd", "18446744073709551615-18446744073709551615", "p", "x"]],
      ["is no stream", ["set", "mine"]]
    ] as const
  ) {
    test(`a channel whose log ${what} holds up no other, and gets what waits when it is mended`, ({ here, send, there }) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { seen } = yield* listen(There)
        const [command, ...rest] = spoil
        yield* send(command, there.log(Full.name), ...rest)
        const to = (
          channel: string,
          id: string
        ) => ["m", JSON.stringify({ id, channel }), "p", JSON.stringify(id), "n", id]
        for (let n = 0; n < 300; n++) yield* send("xadd", here.outbox, "*", ...to(Full.name, `full-${n}`))
        for (const id of ["a", "b"]) yield* send("xadd", here.outbox, "*", ...to(There.name, id))
        assert.strictEqual(yield* broker.relay(0, 500), 2)
        const messages = yield* Queue.takeN(seen, 2)
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a", "b"])
        assert.strictEqual(yield* send("xlen", here.outbox), 300)
        yield* send("del", there.log(Full.name))
        while ((yield* send("xlen", here.outbox)) !== 0) yield* broker.relay(0, 500)
        const ids = (yield* send("xrange", there.log(Full.name), "-", "+")) as ReadonlyArray<
          readonly [string, ReadonlyArray<string>]
        >
        assert.deepStrictEqual(
          ids.map(([, fields]) => fields[1]),
          Array.from({ length: 300 }, (_, n) => `full-${n}`)
        )
      }))
  }

  test("brings a message to a shard that has seen positions of a clock that was ahead", ({ here, send, there }) =>
    Effect.gen(function*() {
      yield* send("hset", there.relayed, "0", ahead)
      const { seen } = yield* listen(There)
      yield* listen(Here, {
        transactional: true,
        handler: ({ payload }) => Transaction.publish(There, payload)
      })
      yield* Publisher.publishAll(Here, ["a", "b", "c"])
      const messages = yield* Queue.takeN(seen, 3)
      assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a", "b", "c"])
      yield* until("the outbox is empty", Effect.map(send("xlen", here.outbox), (length) => length === 0))
      assert.strictEqual(yield* send("hget", there.relayed, "0"), ahead)
    }))

  test("brings nothing a second time that has arrived and is still in it", ({ here, send, there }) =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      yield* Publisher.publish(There, "before")
      // Whoever brought `a` there was killed before it left the outbox. `b` was added after a failover took the outbox back.
      yield* send("hset", there.relayed, "0", ahead)
      yield* send("zadd", there.arrived(0), 1, "a")
      yield* send("xadd", here.outbox, early, ...entry("a", "a"))
      yield* send("xadd", here.outbox, "6-0", ...entry("b", "b"))
      while ((yield* send("xlen", here.outbox)) !== 0) yield* broker.relay(0, 10)
      const ids = ((yield* send("xrange", there.log(There.name), "-", "+")) as ReadonlyArray<
        readonly [string, ReadonlyArray<string>]
      >)
        .map(([, fields]) => JSON.parse(fields.at(-1)!) as string)
      assert.deepStrictEqual(ids, ["before", "b"])
    }))
})
