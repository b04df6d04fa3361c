import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue, Result, Schema } from "effect"
import * as PersistedQueue from "effect/persistence/PersistedQueue"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Persistence from "effect/persistence/Redis"
import { EffectRedis, Redis, Rotif } from "rotif"
import { inject } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix } from "../contract/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`
const cluster = inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port }))

const backends: ReadonlyArray<readonly [string, Redis.Options]> = [["Redis", { url }], ["Cluster", { cluster }]]

const limiterOn = (options: Redis.Options, prefix: string) =>
  RateLimiter.layer.pipe(
    Layer.provide(RateLimiter.layerStoreRedis({ prefix })),
    Layer.provide(EffectRedis.layer()),
    Layer.provide(Redis.layer(options))
  )

describe.each(backends)("EffectRedis on %s", (_, options) => {
  it.live.each(["fixed-window", "token-bucket"] as const)(
    "Effect's RateLimiter (%s): fibers and applications share a limit",
    (algorithm) =>
      Effect.scoped(Effect.gen(function*() {
        const prefix = `{${freshPrefix()}}:`
        // Each has connections of its own, as two processes would.
        const applications = yield* Effect.forEach(
          [1, 2],
          () => Layer.build(Layer.fresh(limiterOn(options, prefix)))
        )
        const consume = RateLimiter.RateLimiter.use((limiter) =>
          limiter.consume({ algorithm, key: "api", limit: 10, window: "1 hour" })
        )
        const outcomes = yield* Effect.forEach(
          Array.from({ length: 30 }, (_, i) => applications[i % 2]!),
          (context) => Effect.result(Effect.provide(consume, context)),
          { concurrency: "unbounded" }
        )
        assert.lengthOf(outcomes.filter(Result.isSuccess), 10)
        const refused = outcomes.find(Result.isFailure)
        assert.strictEqual(refused?.failure.reason._tag, "RateLimitExceeded")
      })),
    20_000
  )

  it.live(
    "Effect's PersistedQueue: what one application offers another takes",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const prefix = `{${freshPrefix()}}:`
        const application = Layer.fresh(PersistedQueue.layer.pipe(
          Layer.provide(PersistedQueue.layerStoreRedis({ prefix, pollInterval: "20 millis" })),
          Layer.provide(EffectRedis.layer()),
          Layer.provide(Redis.layer(options))
        ))
        const queue = PersistedQueue.make({ name: "jobs", schema: Schema.Struct({ n: Schema.Int }) })
        const [one, two] = [yield* Layer.build(application), yield* Layer.build(application)]
        const offering = yield* Effect.provide(queue, one)
        const taking = yield* Effect.provide(queue, two)
        yield* offering.offer({ n: 1 })
        yield* offering.offer({ n: 2 })
        const taken = yield* Effect.forEach([1, 2], () => taking.take(({ n }) => Effect.succeed(n)))
        assert.deepStrictEqual(taken, [1, 2])
      })),
    20_000
  )

  it.live("sends, subscribes, and reserves connections for commands that block", () =>
    Effect.gen(function*() {
      const redis = yield* Persistence.Redis
      const key = freshPrefix()
      const messages = yield* redis.subscribe(key)
      // Its subscription begins in a fiber of its own: it has begun when the message arrives.
      const publishing = yield* Effect.forkChild(
        Effect.forever(Effect.andThen(redis.send("PUBLISH", key, "hello"), Effect.sleep("5 millis")))
      )
      assert.deepStrictEqual(yield* Queue.take(messages), { channel: key, message: "hello" })
      yield* Fiber.interrupt(publishing)

      const blocking = yield* redis.reserve
      const popping = yield* Effect.forkChild(blocking.send("BLPOP", `${key}:list`, "0"), { startImmediately: true })
      yield* redis.send("RPUSH", `${key}:list`, "a")
      assert.deepStrictEqual(yield* Fiber.join(popping), [`${key}:list`, "a"])
      const double = Persistence.script((name: string, by: number) => [name, by], {
        numberOfKeys: 1,
        lua: `return redis.call("INCRBY", KEYS[1], ARGV[1] * 2)`
      }).withReturnType<number>()
      assert.strictEqual(yield* redis.eval(double)(`${key}:n`, 2), 4)
      assert.strictEqual(yield* blocking.eval(double)(`${key}:n`, 3), 10)
      yield* redis.send("RPUSH", `${key}:list`, "b")
      const wrongType = yield* Effect.flip(redis.send("INCR", `${key}:list`))
      assert.instanceOf(wrongType.cause, Redis.RedisError)
    }).pipe(
      Effect.scoped,
      Effect.provide(EffectRedis.layer().pipe(Layer.provide(Redis.layer(options))))
    ), 20_000)
})

describe("EffectRedis", () => {
  it.live(
    "works on the connections of Rotif.layer, also after the server forgot the script",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        yield* Effect.gen(function*() {
          const { eval: evaluate } = yield* Persistence.Redis
          const increment = evaluate(
            Persistence.script((key: string) => [key], { numberOfKeys: 1, lua: `return redis.call("INCR", KEYS[1])` })
              .withReturnType<number>()
          )
          assert.strictEqual(yield* increment("n"), 1)
          yield* server.command("script", "flush")
          assert.strictEqual(yield* increment("n"), 2)
        }).pipe(Effect.provide(EffectRedis.layer().pipe(Layer.provideMerge(Rotif.layer({ url: server.url })))))
      }).pipe(Effect.scoped),
    20_000
  )
})
