/** A master that is killed, and its replica that takes over by the word of the Sentinels: the path goes on by itself. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schedule, Schema } from "effect"
import { Channel, Publisher, Redis, Rotif } from "rotif"
import * as RedisSentinel from "../fixtures/RedisSentinel.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { leftover, letters, listen, nothingLeft } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const log = "{s:0}:log:texts"

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  Effect.timeoutOrElse(Effect.repeat(check, { until: (done) => done, schedule: Schedule.spaced(20) }), {
    duration: "20 seconds",
    orElse: () => Effect.die(new Error("nothing happened within 20 seconds"))
  })

describe("Rotif.layer with Sentinels", () => {
  it.live(
    "finds the master, and the replica that takes over; replicated and new messages are handled",
    () =>
      Effect.gen(function*() {
        const { master, options, replicas: [replica] } = yield* RedisSentinel.make()
        assert(replica !== undefined)
        const before = Array.from({ length: 50 }, (_, i) => `before ${i}`)
        const after = Array.from({ length: 50 }, (_, i) => `after ${i}`)
        yield* Effect.gen(function*() {
          assert.strictEqual((yield* Redis.Redis).mode, "sentinel")
          const { seen, subscription } = yield* listen(Text, { group: "g", concurrency: 5 })
          yield* Publisher.publishAll(Text, before)
          assert.strictEqual(yield* master.command("xlen", log), before.length)
          yield* Queue.takeN(seen, before.length)
          yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
          yield* Publisher.publish(Text, "later", { delay: "3 seconds" })
          // Replication is asynchronous: only what has arrived there survives.
          yield* until(Effect.gen(function*() {
            const offsets = yield* Effect.forEach([master, replica], (server) =>
              Effect.map(
                server.command("info", "replication"),
                (info) => /master_repl_offset:(\d+)/.exec(String(info))?.[1]
              ))
            return offsets[0] === offsets[1]
          }))
          yield* master.kill
          for (const text of after) {
            // Not in one go: some while nobody is master, some after.
            yield* Effect.retry(Publisher.publish(Text, text), { schedule: Schedule.spaced(20) })
          }
          const rest = yield* Queue.takeN(seen, after.length + 1)
          assert.sameMembers(rest.map(({ payload }) => payload), [...after, "later"])
          assert.deepStrictEqual(
            (yield* Effect.map(replica.command("role"), (role) => role as Array<unknown>))[0],
            "master"
          )
          yield* subscription.drain
          assert.strictEqual(yield* Queue.size(seen), 0)
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
          assert.deepStrictEqual(yield* letters, [])
        }).pipe(
          Effect.scoped,
          Effect.provide(
            Rotif.layer({ ...options, prefix: "s" })
          )
        )
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("says that the master is not known by this name", () =>
    Effect.gen(function*() {
      const sentinel = yield* RedisSentinel.watch(yield* RedisServer.make())
      const error = yield* Effect.flip(Effect.scoped(Redis.make({
        sentinels: [{ host: sentinel.host, port: sentinel.port }],
        name: "other",
        startTimeout: "2 seconds"
      })))
      assert.include(["Unavailable", "Refused"], error.reason)
      assert.match(error.message, /other/)
    }).pipe(Effect.scoped), 60_000)
})
