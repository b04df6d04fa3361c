/** Pauses of groups on a real server: how soon they are known, what a lost event costs, and what survives. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Redis } from "ioredis"
import { Channel, Groups, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import { freshPrefix, listen } from "../contract/kit.ts"

const port = inject("redisPort")
const url = `redis://127.0.0.1:${port}`
const Text = Channel.make("texts", { payload: Schema.String })
const lease = 600

const client = Effect.acquireRelease(
  Effect.sync(() => new Redis({ host: "127.0.0.1", port })),
  (redis) => Effect.sync(() => redis.disconnect())
)

const quiet = Effect.repeat(Effect.tap(Groups.isQuiet("g"), () => Effect.sleep(5)), { until: (isQuiet) => isQuiet })

const test = (name: string, body: (prefix: string, redis: Redis) => Effect.Effect<void, unknown, never>) =>
  it.live(name, () =>
    Effect.gen(function*() {
      yield* body(freshPrefix(), yield* client)
    }).pipe(Effect.scoped))

describe("Groups.pause on Redis", () => {
  test("all consumers know of it within 100 ms, each time", (prefix) =>
    Effect.gen(function*() {
      const seen = yield* Effect.forEach([1, 2, 3], () => listen(Text, { group: "g" }))
      const took: Array<number> = []
      for (let i = 0; i < 10; i++) {
        const from = performance.now()
        yield* Groups.pause("g", { reason: `${i}` })
        yield* quiet
        took.push(performance.now() - from)
        yield* Groups.resume("g")
        yield* Publisher.publish(Text, `${i}`)
        yield* Effect.raceAllFirst(seen.map(({ seen }) => Queue.take(seen)))
      }
      // The median: a machine with other work is late now and then.
      assert.isBelow(took.toSorted((a, b) => a - b)[5]!, 100)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix }))))

  test(
    "a pause whose event was lost is found within a lease, and so is its end",
    (prefix, redis) =>
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g", lease })
        const pause = [
          "hset",
          `{${prefix}:0}:paused`,
          "g\n**",
          `${Date.now()} - {"id":"i","reason":"by hand"}`
        ] as const
        yield* Effect.promise(() => redis.call(...pause))
        const from = performance.now()
        yield* quiet
        assert.isBelow(performance.now() - from, lease)
        yield* Publisher.publish(Text, "a")
        yield* Effect.promise(() => redis.hdel(`{${prefix}:0}:paused`, "g\n**"))
        const again = performance.now()
        assert.strictEqual((yield* Queue.take(seen)).payload, "a")
        assert.isBelow(performance.now() - again, lease)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix })))
  )

  test(
    "what a consumer keeps is told again when the record is lost, and goes with the consumer",
    (prefix, redis) =>
      Effect.gen(function*() {
        const resting = `{${prefix}:0}:resting:g`
        yield* Effect.scoped(Effect.gen(function*() {
          yield* listen(Text, { group: "g", lease })
          yield* Groups.pause("g", { reason: "x" })
          yield* quiet
          yield* Effect.promise(() => redis.del(resting))
          assert.isFalse(yield* Groups.isQuiet("g"))
          yield* quiet
        }))
        assert.strictEqual(yield* Effect.promise(() => redis.exists(resting)), 0)
        yield* Groups.resume("g")
        assert.strictEqual(yield* Effect.promise(() => redis.exists(`{${prefix}:0}:paused`)), 0)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix })))
  )

  test("survives the program: a new one joins and rests; another pause of the namespace is not touched", (prefix) =>
    Effect.gen(function*() {
      yield* Effect.gen(function*() {
        yield* Groups.pause("g", { reason: "x", by: "ops" })
        yield* Groups.pause("h", { reason: "y" })
      }).pipe(Effect.provide(Rotif.layer({ url, prefix })))
      yield* Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g" })
        yield* Publisher.publish(Text, "a")
        yield* quiet
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual((yield* Groups.resume("g")).map(({ by }) => by), ["ops"])
        assert.strictEqual((yield* Queue.take(seen)).payload, "a")
        assert.deepStrictEqual((yield* Groups.list).map(({ group, isPaused }) => [group, isPaused]), [
          ["g", false],
          ["h", true]
        ])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix })))
    }))
})
