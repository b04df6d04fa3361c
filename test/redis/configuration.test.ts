import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Deferred, Duration, Effect, Layer, Schema } from "effect"
import { Channel, DeadLetters, Publisher, Redis, Rotif, Subscription } from "rotif"
import { inject } from "vitest"
import { freshPrefix } from "../contract/kit.ts"

const environment = (record: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnvRecord(record))
const redisUrl = `redis://127.0.0.1:${inject("redisPort")}`
const Jobs = Channel.make("jobs", { payload: Schema.String })

describe("Rotif.config", () => {
  const read = (record: Record<string, string>) => Rotif.config.pipe(Effect.provide(environment(record)))

  it.effect("has nothing where the environment has nothing", () =>
    Effect.gen(function*() {
      const { deadLetters, ...options } = yield* read({})
      for (const value of [...Object.values(options), ...Object.values(deadLetters!)]) assert.isUndefined(value)
    }))

  it.effect("reads every option", () =>
    Effect.gen(function*() {
      const { deadLetters, ...options } = yield* read({
        ROTIF_PREFIX: "shop",
        ROTIF_SHARDS: "8",
        ROTIF_GRACE: "15 seconds",
        ROTIF_DELAYED: "false",
        ROTIF_CHECK_INTERVAL: "1 minute",
        ROTIF_TRIM_INTERVAL: "2 minutes",
        ROTIF_BLOCK_INTERVAL: "3 seconds",
        ROTIF_LEASE: "4 seconds",
        ROTIF_DRAIN_TIMEOUT: "5 seconds",
        ROTIF_CONCURRENCY: "6",
        ROTIF_MAX_RETRIES: "7",
        ROTIF_RETRY_DELAY: "8 seconds",
        ROTIF_MAX_CRASHES: "9",
        ROTIF_MAX_PAYLOAD_BYTES: "10",
        ROTIF_MAX_WINDOW: "14 days",
        ROTIF_DURABILITY_REPLICAS: "2",
        ROTIF_DURABILITY_FSYNC: "true",
        ROTIF_DURABILITY_TIMEOUT: "3 seconds",
        ROTIF_DEAD_LETTERS_MAX_AGE: "Infinity",
        ROTIF_DEAD_LETTERS_MAX_COUNT: "11",
        ROTIF_DEAD_LETTERS_INTERVAL: "12 seconds"
      })
      assert.deepStrictEqual(options, {
        prefix: "shop",
        shards: 8,
        graceMillis: 15_000,
        delayed: false,
        checkInterval: Duration.minutes(1),
        trimInterval: Duration.minutes(2),
        blockInterval: Duration.seconds(3),
        lease: Duration.seconds(4),
        drainTimeout: Duration.seconds(5),
        concurrency: 6,
        maxRetries: 7,
        retryDelay: Duration.seconds(8),
        maxCrashes: 9,
        maxPayloadBytes: 10,
        maxWindow: Duration.days(14),
        durability: { replicas: 2, fsync: true, timeout: Duration.seconds(3) }
      })
      assert.deepStrictEqual(deadLetters, {
        maxAge: Duration.infinity,
        maxCount: 11,
        interval: Duration.seconds(12)
      })
    }))

  it.effect.each(["ROTIF_SHARDS", "ROTIF_LEASE", "ROTIF_DELAYED", "ROTIF_DEAD_LETTERS_MAX_COUNT"])(
    "names the one that cannot be read: %s",
    (name) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(read({ [name]: "many" }))
        assert.instanceOf(error, Config.ConfigError)
        assert.include(error.message, name)
      })
  )
})

describe("Rotif.layerConfig", () => {
  const layerOf = (record: Record<string, string>, options?: Parameters<typeof Rotif.layerConfig>[0]) =>
    Rotif.layerConfig(options).pipe(Layer.provide(environment({ REDIS_URL: redisUrl, ...record })))

  /** What is given up after one failure, and where its keys are. */
  const fail = Effect.gen(function*() {
    const handled = yield* Deferred.make<number>()
    const subscription = yield* Subscription.make(Jobs, {
      handler: ({ attempt }) => Effect.andThen(Deferred.succeed(handled, attempt), Effect.fail("no"))
    })
    yield* Publisher.publish(Jobs, "a job")
    yield* Deferred.await(handled)
    yield* Effect.repeat(DeadLetters.count(), { until: (count) => count === 1 })
    const redis = yield* Redis.Redis
    const keys = yield* redis.connection("x").send(["keys", "*"], { idempotent: true })
    const prefixes = new Set((keys as ReadonlyArray<string>).map((key) => /^\{([^:}]*):\d+\}/.exec(key)?.[1]))
    return { group: subscription.group, prefixes }
  })

  it.live("takes the connection and the options from the environment", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const { group, prefixes } = yield* fail.pipe(
        Effect.scoped,
        Effect.provide(layerOf({ ROTIF_PREFIX: prefix, ROTIF_MAX_RETRIES: "0" }))
      )
      assert.strictEqual(group, "jobs")
      assert.isTrue(prefixes.has(prefix))
    }))

  it.live("options in the code win", () =>
    Effect.gen(function*() {
      const [given, read] = [freshPrefix(), freshPrefix()]
      const options = { prefix: given, maxRetries: 0, groupName: (source: string) => `shop:${source}` }
      const { group, prefixes } = yield* fail.pipe(
        Effect.scoped,
        Effect.provide(layerOf({ ROTIF_PREFIX: read, ROTIF_MAX_RETRIES: "7" }, options))
      )
      assert.strictEqual(group, "shop:jobs")
      assert.deepStrictEqual([prefixes.has(given), prefixes.has(read)], [true, false])
    }))

  it.live("fails with the name of the variable that cannot be read, before any connection", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Layer.build(layerOf({ REDIS_URL: "redis://127.0.0.1:1", ROTIF_SHARDS: "x" })))
      assert.include(error.message, "ROTIF_SHARDS")
    }).pipe(Effect.scoped))

  it.live("secrets are in nothing that can be printed", () =>
    Effect.gen(function*() {
      const options = yield* Redis.config.pipe(
        Effect.provide(environment({ REDIS_URL: "redis://:hunter2@localhost", REDIS_PASSWORD: "hunter3" }))
      )
      assert.notMatch(JSON.stringify(options), /hunter/)
    }))
})
