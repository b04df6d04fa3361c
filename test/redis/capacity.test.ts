/** Capacity over shards, and what only Redis has of it: reads that take nothing, positions that are old. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Queue, Schema } from "effect"
import { Redis } from "ioredis"
import { Channel, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import { freshPrefix, leftover, listen, liveBackend, nothingLeft, until } from "../contract/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`
const backend = liveBackend("Redis", (options) => Rotif.layer({ url, ...options }))
const { soon } = backend

const All = Channel.pattern("all.*", { payload: Schema.String })
const one = (n: number) => Channel.make(`all.${n}`, { payload: Schema.String })
const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i))

const on = (shards: number) =>
  Effect.provide(Rotif.layer({ url, prefix: freshPrefix(), shards, drainTimeout: "5 seconds" }))

describe("Subscription.make: capacity over shards", () => {
  for (const shards of [8, 16]) {
    it.live(`${shards} shards: eight handlers run of one hot channel, and seven beside one that does not end`, () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        let running = 0
        let most = 0
        const { seen, subscription } = yield* listen(All, {
          concurrency: 8,
          handler: ({ payload }) =>
            payload === "stuck" ? Deferred.await(gate) : Effect.gen(function*() {
              most = Math.max(most, ++running)
              yield* Effect.sleep(20)
              running--
            })
        })
        yield* Publisher.publishAll(one(0), numbers(80))
        yield* soon(Queue.takeN(seen, 80))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 80))
        assert.strictEqual(most, 8)
        yield* Publisher.publish(one(0), "stuck")
        yield* soon(Queue.take(seen))
        most = 0
        yield* Publisher.publishAll(one(0), numbers(80))
        yield* soon(Queue.takeN(seen, 80))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 160))
        assert.strictEqual(most, 7)
        yield* Deferred.succeed(gate, undefined)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(All), nothingLeft)
      }).pipe(Effect.scoped, on(shards)))

    it.live(`${shards} shards: one message of 300 channels is held where one may be`, () =>
      Effect.gen(function*() {
        yield* Effect.forEach(numbers(300), (n) => Publisher.publish(one(Number(n)), n), { concurrency: 50 })
        let most = 0
        const { seen, subscription } = yield* listen(All, {
          concurrency: 1,
          prefetch: 0,
          handler: () => Effect.yieldNow
        })
        for (let i = 0; i < 300; i++) {
          yield* soon(Queue.take(seen))
          most = Math.max(most, (yield* subscription.stats).held)
        }
        assert.isAtMost(most, 1)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(All), nothingLeft)
      }).pipe(Effect.scoped, on(shards)))
  }

  it.live("finds the messages of a group that another member has recreated at an earlier position, while it waits for new ones", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        const lease = 400
        const { seen, subscription } = yield* listen(All, {
          group: "g",
          lease,
          concurrency: 1,
          prefetch: 0,
          blockInterval: 100
        })
        for (const n of [0, 1, 2]) yield* Publisher.publish(one(n), "first")
        yield* soon(Queue.takeN(seen, 3))
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 0))
        // The position of a group is set back behind its back.
        const client = new Redis(url)
        yield* Effect.promise(() => client.xgroup("SETID", `{${prefix}:0}:log:all.1`, "g", "0"))
        client.disconnect()
        assert.strictEqual((yield* soon(Queue.take(seen))).channel, "all.1")
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix })))
    }))
})
