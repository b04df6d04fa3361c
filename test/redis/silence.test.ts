/** Every wait for Redis is reported. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Redacted, Schema } from "effect"
import { Channel, Redis, RedisBroker, Rotif, Subscription } from "rotif"
import { NotificationManager } from "rotif/promise"
import * as LogLines from "../fixtures/logLines.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { liveBackend } from "../contract/kit.ts"

const { soon } = liveBackend("Redis", () => Layer.empty as never)
const until = (isSo: () => boolean) => soon(Effect.repeat(Effect.delay(Effect.sync(isSo), 20), { until: (so) => so }))

const waits = "waits for Redis"

describe.concurrent("a start without Redis", () => {
  it.live("reports the wait after 2 seconds, then after 4, without credentials", () =>
    Effect.gen(function*() {
      const log = LogLines.make()
      const port = yield* Effect.promise(RedisServer.freePort)
      const url = Redacted.make(`redis://alice:hunter2@127.0.0.1:${port}`)
      const from = performance.now()
      const exit = yield* Effect.exit(
        Effect.scoped(Layer.build(Rotif.layer({ url, startTimeout: "5 seconds" }))).pipe(Effect.provide(log.layer))
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.isAtLeast(performance.now() - from, 4_000)
      const lines = log.find("Warn", waits, `127.0.0.1:${port}`, "ECONNREFUSED")
      assert.deepStrictEqual(lines.map(({ text }) => /for (\d+) s now/.exec(text)![1]), ["2", "4"])
      assert.isFalse(log.lines.some(({ text }) => /hunter2|alice/.test(text)))
    }), 20_000)

  it.live(
    "says so of a server that takes connections and does not answer, of a Cluster, and of Sentinels",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        yield* server.stop
        const { host, port } = server
        for (
          const where of [
            { host, port },
            { cluster: [{ host, port }] },
            { sentinels: [{ host, port }], name: "mymaster" }
          ]
        ) {
          const log = LogLines.make()
          const start = yield* Effect.forkChild(Effect.scoped(Redis.make(where)).pipe(Effect.provide(log.layer)))
          yield* until(() => log.find("Warn", waits).length > 0)
          const [line] = log.find("Warn", waits)
          assert.include(line!.text, "sentinels" in where ? "mymaster" : `${host}:${port}`)
          yield* Fiber.interrupt(start)
        }
        yield* server.cont
      }),
    30_000
  )

  it.live("says so in the Promise API", () =>
    Effect.gen(function*() {
      const port = yield* Effect.promise(RedisServer.freePort)
      const lines: Array<string> = []
      const write = (line: string) => void lines.push(line)
      const manager = new NotificationManager({
        redis: `redis://:hunter2@127.0.0.1:${port}`,
        logger: { debug: write, info: write, warn: write, error: write }
      })
      const start = manager.publish("a", 1).catch((error: Error) => error.message)
      yield* until(() => lines.some((line) => line.includes(waits) && line.includes(`127.0.0.1:${port}`)))
      assert.isFalse(lines.some((line) => line.includes("hunter2")))
      yield* Effect.promise(() => manager.stopAll())
      yield* Effect.promise(() => start)
    }), 20_000)
})

describe.concurrent("a subscription that cannot join", () => {
  it.live("says that it waits for Redis", () =>
    Effect.gen(function*() {
      const log = LogLines.make()
      const server = yield* RedisServer.make()
      const Text = Channel.make("texts", { payload: Schema.String })
      yield* Effect.gen(function*() {
        yield* server.stop
        const joining = yield* Effect.forkChild(
          Effect.scoped(Subscription.make(Text, { group: "billing", handler: () => Effect.void }))
        )
        yield* until(() => log.find("Warn", waits, "\"billing\"").length > 0)
        yield* server.cont
        yield* soon(Fiber.await(joining))
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url })), Effect.provide(log.layer))
    }), 30_000)

  it.live("and so does the broker that finds its server frozen", () =>
    Effect.gen(function*() {
      const log = LogLines.make()
      const server = yield* RedisServer.make()
      yield* Effect.gen(function*() {
        yield* Redis.Redis
        yield* server.stop
        const opening = yield* Effect.forkChild(Effect.scoped(RedisBroker.make()))
        yield* until(() => log.find("Warn", waits).length > 0)
        yield* server.cont
        yield* soon(Fiber.await(opening))
      }).pipe(Effect.scoped, Effect.provide(Redis.layer({ url: server.url })), Effect.provide(log.layer))
    }), 30_000)
})
