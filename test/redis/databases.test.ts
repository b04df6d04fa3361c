/** Two programs with one prefix in two databases of one server know nothing of each other. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Broadcast, Channel, Publisher, Rotif, Subscription } from "rotif"
import { inject } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { userOf } from "../fixtures/documentedUser.ts"
import { freshPrefix } from "../contract/kit.ts"

const Price = Channel.make("prices.eur", { payload: Schema.Int })
const AnyPrice = Channel.pattern("prices.*", { payload: Schema.Int })
const Order = Channel.make("orders", { payload: Schema.Int })

const at = (database: number, prefix: string, options?: Partial<Rotif.RedisOptions>) =>
  Rotif.layer(
    { url: `redis://127.0.0.1:${inject("redisPort")}`, prefix, db: database, ...options } as Rotif.RedisOptions
  )

const listen = Effect.fnUntraced(function*(source: typeof Price | typeof AnyPrice) {
  const seen = yield* Queue.unbounded<number>()
  yield* Broadcast.listen(source, { handler: ({ payload }) => Queue.offer(seen, payload) })
  return seen
})

describe("a database of the server", () => {
  it.live.each([["a name", Price], ["a pattern", AnyPrice]] as const)(
    "Broadcast hears nothing of another one, by %s",
    ([, source]) =>
      Effect.gen(function*() {
        const prefix = freshPrefix()
        yield* Effect.gen(function*() {
          const here = yield* listen(source)
          yield* Effect.gen(function*() {
            const there = yield* listen(source)
            yield* Broadcast.publish(Price, 1)
            assert.strictEqual(yield* Queue.take(there), 1)
          }).pipe(Effect.scoped, Effect.provide(at(1, prefix)))
          yield* Broadcast.publish(Price, 2)
          assert.strictEqual(yield* Queue.take(here), 2)
        }).pipe(Effect.scoped, Effect.provide(at(0, prefix)))
      })
  )

  it.live("wakes those who listen to its own events, and no others", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const options = { url: server.url }
      const topics = Effect.map(server.command("pubsub", "channels"), (names) => names as ReadonlyArray<string>)
      yield* Effect.gen(function*() {
        const seen = yield* Queue.unbounded<number>()
        yield* Subscription.make(Order, { group: "g", handler: ({ payload }) => Queue.offer(seen, payload) })
        assert.deepStrictEqual(yield* topics, ["{p:0}:db3:events"])
        yield* Publisher.publish(Order, 1, { delay: 20 })
        assert.strictEqual(yield* Queue.take(seen), 1)
      }).pipe(Effect.scoped, Effect.provide(at(3, "p", options)))
    }).pipe(Effect.scoped))

  it.live("the documented user may all of it", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const [name, ...args] = userOf("p")
      yield* server.command(name!, ...args, "&{p:0}:db3:broadcast:*")
      yield* Effect.gen(function*() {
        const seen = yield* listen(AnyPrice)
        yield* Broadcast.publish(Price, 7)
        assert.strictEqual(yield* Queue.take(seen), 7)
      }).pipe(
        Effect.scoped,
        Effect.provide(at(3, "p", { url: `redis://p:secret@127.0.0.1:${server.port}` }))
      )
    }).pipe(Effect.scoped))
})
