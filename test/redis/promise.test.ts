import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { InvalidOption, NotificationManager, type RotifConfig } from "rotif/promise"
import { inject } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix } from "../contract/kit.ts"
import { backends, managed, quiet, redisUrl, until } from "../contract/promiseKit.ts"
import { promiseSuite } from "../contract/promise.ts"
import { promiseEndsSuite } from "../contract/promiseEnds.ts"
import { promiseOrderingSuite } from "../contract/promiseOrdering.ts"
import { promiseTypedSuite } from "../contract/promiseTyped.ts"
import { promiseValuesSuite } from "../contract/promiseValues.ts"

for (const { config, name } of backends) {
  promiseSuite(name, config)
  promiseEndsSuite({ name, config })
  promiseTypedSuite(name, config)
  promiseValuesSuite(name, config)
  promiseOrderingSuite(name, config)
}

describe("the configuration", () => {
  const thrown = (config: unknown): InvalidOption => {
    try {
      new NotificationManager(config as RotifConfig)
    } catch (error) {
      assert.instanceOf(error, Error)
      return error as InvalidOption
    }
    return assert.fail("it was accepted")
  }

  const invalid: ReadonlyArray<readonly [option: string, config: unknown]> = [
    ["maxRetires", { maxRetires: 3 }],
    ["maxRetries", { maxRetries: "3" }],
    ["maxRetries", { maxRetries: -1 }],
    ["maxRetries", { maxRetries: 1.5 }],
    ["maxRetries", { maxRetries: null }],
    ["retryDelay", { retryDelay: "1s" }],
    ["retryStrategy.strategy", { retryStrategy: { strategy: "random" } }],
    ["retryStrategy.delay", { retryStrategy: { strategy: "fixed", delay: 1 } }],
    ["redis", { redis: 6379 }],
    ["redis", { redis: "" }],
    ["redis.keyPrefix", { redis: { url: redisUrl, keyPrefix: "x" } }],
    ["redis.path", { redis: { host: "localhost", path: "/tmp/redis.sock" } }],
    ["redis.path", { redis: { url: redisUrl, path: "/tmp/redis.sock" } }],
    ["redis.tls", { redis: { url: redisUrl, tls: "yes" } }],
    ["redis.port", { redis: { host: "localhost", port: "6379" } }],
    ["redis.password", { redis: { url: redisUrl, password: 5 } }],
    ["prefix", { prefix: "{mine}" }],
    ["lease", { lease: 5 }],
    ["logger", { logger: { info: () => {} } }],
    ["groupNameFn", { groupNameFn: "group" }],
    ["minStreamId", { minStreamId: "first" }],
    ["enableDelayed", { enableDelayed: 1 }],
    ["blockInterval", { blockInterval: 0 }],
    ["dlqCleanup.maxAge", { dlqCleanup: { enabled: true, maxAge: "1d" } }],
    ["concurrency", { concurrency: Number.NaN }],
    ["durability.replicas", { durability: { replicas: -1 } }],
    ["durability.timeout", { durability: { timeout: "1s" } }],
    ["reports", { reports: "loud" }],
    ["slowHandler", { slowHandler: 0 }]
  ]
  it.each(invalid)("refuses at construction, naming the option: %s", (option, config) => {
    const error = thrown(config)
    assert.strictEqual(error.option, option)
    assert.include(error.message, `"${option}"`)
  })

  it("refuses what is no configuration, or no URL, without showing it", () => {
    assert.match(thrown("redis://localhost").message, /must be an object/)
    const error = thrown({ redis: "http://user:hunter2@localhost" })
    assert.match(error.message, /URL/)
    assert.notInclude(JSON.stringify(error) + error.message, "hunter2")
  })

  it("takes every option", async () => {
    const all: Required<RotifConfig> = {
      redis: { url: redisUrl, username: undefined, password: undefined, connectionName: "all" },
      channels: { "orders.placed": { schema: undefined } },
      maxRetries: 3,
      retryDelay: (attempt) => attempt,
      retryStrategy: {
        strategy: "exponential",
        baseDelay: 1,
        multiplier: 2,
        maxDelay: 10,
        jitter: true,
        customDelayFn: undefined
      },
      checkDelayInterval: 1000,
      enableDelayed: true,
      disableDelayed: false,
      blockInterval: 1000,
      logger: console,
      maxStreamLength: 10_000,
      minStreamId: "1-0",
      groupNameFn: (pattern) => pattern,
      consumerNameFn: () => "consumer",
      generateOrderingKey: () => null,
      deduplicationTTL: 60,
      generateDedupKey: ({ channel }) => channel,
      localRoundRobin: false,
      concurrency: 2,
      prefix: freshPrefix(),
      shards: 1,
      lease: 10_000,
      drainTimeout: 1000,
      healthInterval: 1000,
      dlqKey: "dlq",
      dlqCleanup: {
        enabled: true,
        maxAge: 1000,
        maxSize: 10,
        cleanupInterval: 1000,
        archiveBeforeDelete: true,
        archivePrefix: "archive"
      },
      maxPayloadBytes: 1000,
      durability: { replicas: 1, timeout: 1, fsync: false },
      reports: "warn",
      slowHandler: 1000,
      scheduledBatchSize: 100,
      pendingCheckInterval: 1000,
      pendingIdleThreshold: 1000,
      disablePendingMessageRecovery: false,
      pipelineBatchSize: 10,
      enablePipelining: true,
      enableFieldPooling: true,
      enableBackpressure: true,
      backpressureThreshold: 10,
      enableHealthCheck: true
    }
    const manager = managed({ ...all, logger: quiet })
    await manager.waitUntilReady()
    assert.match(
      await manager.publish("a", "x".repeat(1000)).then(() => "stored", (error: Error) => error.message),
      /limit is 1000/
    )
  })

  it("makes nothing before it is used", () => {
    const { redis } = managed({ redis: "redis://127.0.0.1:1" })
    assert.strictEqual(redis.status, "wait")
    assert.throws(() => managed({ redis: "memory" }).redis, /in memory/)
  })
})

describe("the logger", () => {
  const record = () => {
    const lines: Array<string> = []
    const at = (level: string) => (message: unknown) => void lines.push(`${level} ${String(message)}`)
    return { lines, logger: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") } }
  }

  it("gets one string for each line, by its level", async () => {
    const { lines, logger } = record()
    const manager = managed({ redis: "memory", logger, retryDelay: 1 })
    manager.use({
      afterProcess: () => {
        throw new Error("in a hook")
      }
    })
    await manager.subscribe("a", () => {})
    await manager.publish("a", 1)
    await until(() => lines.length > 0)
    assert.lengthOf(lines, 1)
    assert.match(lines[0]!, /^error rotif: the hook afterProcess failed[^]*in a hook/)
  })

  it("may throw", async () => {
    const boom = () => {
      throw new Error("no log today")
    }
    const manager = managed({ redis: "memory", logger: { debug: boom, info: boom, warn: boom, error: boom } })
    manager.use({ afterProcess: boom })
    const subscription = await manager.subscribe("a", () => {})
    await manager.publish("a", 1)
    await manager.publish("a", 2)
    await until(() => subscription.stats().messages === 2)
  })
})

describe("delayed delivery switched off", () => {
  it.each([{ enableDelayed: false }, { disableDelayed: true }])("%o leaves it to other processes", async (off) => {
    const prefix = freshPrefix()
    const idle = managed({ redis: redisUrl, prefix, checkDelayInterval: 10, ...off })
    const seen: Array<string> = []
    await idle.subscribe("a", async ({ payload }) => void seen.push(payload))
    const from = performance.now()
    await idle.publish("a", "delayed", { delayMs: 1 })
    // Long enough for thirty looks, if it looked.
    await until(() => performance.now() - from > 300)
    await idle.publish("a", "now")
    await until(() => seen.length > 0)
    assert.deepStrictEqual(seen, ["now"])
    // Retries do not depend on it.
    await idle.subscribe("b", async ({ attempt }) => {
      if (attempt < 3) throw new Error("no")
      seen.push("retried")
    }, { retryDelay: 5 })
    await idle.publish("b", 1)
    await until(() => seen.length === 2)
    assert.deepStrictEqual(seen, ["now", "retried"])
    const busy = managed({ redis: redisUrl, prefix })
    await busy.waitUntilReady()
    await until(() => seen.length === 3)
  })
})

describe("a server that goes and comes", () => {
  it.live(
    "a start that failed is tried again by the next call; failures are no duplicates",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        yield* server.kill
        const manager = managed({
          redis: { url: server.url, startTimeout: 300, commandTimeout: 300, connectTimeout: 300 }
        })
        const publish = () => manager.publish("a", 1, { exactlyOnce: true }).then((id) => id, (error: Error) => error)
        assert.instanceOf(yield* Effect.promise(publish), Error)
        assert.strictEqual((yield* Effect.promise(() => manager.getHealthStatus())).connected, false)
        yield* server.restart
        assert.match(String(yield* Effect.promise(publish)), /^once-/)
        yield* server.stop
        assert.instanceOf(yield* Effect.promise(publish), Error)
        yield* server.cont
        yield* Effect.promise(() => until(async () => await publish() === "DUPLICATE"))
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("goes on after flushdb, with what is published from then on", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const manager = managed({ redis: server.url })
      const seen: Array<unknown> = []
      yield* Effect.promise(async () => {
        const subscription = await manager.subscribe("a", async ({ payload }) => void seen.push(payload))
        await manager.publish("a", "before")
        await until(() => subscription.stats().messages === 1)
        await manager.redis.flushdb()
        await manager.publish("a", "after")
        await manager.publish("a", "later", { delayMs: 10 })
        await until(() => seen.length === 3)
        // While the server is still there.
        await manager.stopAll()
      })
      assert.sameMembers(seen, ["before", "after", "later"])
    }).pipe(Effect.scoped))

  it("stopAll does not wait for a server that is not there", async () => {
    const manager = managed({ redis: "redis://127.0.0.1:1" })
    const calls = [manager.waitUntilReady(), manager.publish("a", 1), manager.subscribe("a", () => {})]
    const outcomes = Promise.allSettled(calls)
    const from = performance.now()
    await manager.stopAll()
    assert.isBelow(performance.now() - from, 5000)
    assert.deepStrictEqual((await outcomes).map(({ status }) => status), ["rejected", "rejected", "rejected"])
  })

  it.live("healthInterval logs when the health changes", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const lines: Array<string> = []
      const manager = managed({
        redis: { url: server.url, commandTimeout: 200 },
        healthInterval: 50,
        logger: { debug: () => {}, info: (line) => lines.push(line), warn: (line) => lines.push(line), error: () => {} }
      })
      const has = (text: string) => Effect.promise(() => until(() => lines.some((line) => line.includes(text))))
      yield* Effect.promise(() => manager.waitUntilReady())
      yield* server.stop
      yield* has("rotif: unhealthy")
      yield* server.cont
      yield* has("rotif: healthy again")
    }).pipe(Effect.scoped), 60_000)
})

describe("a Cluster", () => {
  it("with shards: publishes, handles, and shows its client", async () => {
    const manager = managed({
      redis: { cluster: inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port })) },
      prefix: freshPrefix(),
      shards: 8
    })
    const seen: Array<string> = []
    await manager.subscribe("orders.*", async ({ channel, payload }) => void seen.push(`${channel} ${payload}`))
    const channels = Array.from({ length: 10 }, (_, n) => `orders.c${n}`)
    await manager.publishBatch(channels.map((channel) => ({ channel, payload: 1 })))
    await until(() => seen.length === 10)
    assert.deepStrictEqual(seen.toSorted(), channels.map((channel) => `${channel} 1`))
    assert.isTrue(manager.redis.isCluster)
    assert.deepStrictEqual(await manager.redis.call("config", "get", "maxmemory"), ["maxmemory", "0"])
  })
})

describe("processes that share a group", () => {
  it("dead letters: those with one dlqKey share them, another dlqKey gets all", async () => {
    const prefix = freshPrefix()
    const seen: Array<string> = []
    const managers = ["x", "x", "y"].map((dlqKey) => ({
      dlqKey,
      manager: managed({ redis: redisUrl, prefix, dlqKey })
    }))
    for (const { dlqKey, manager } of managers) {
      await manager.subscribeToDLQ(({ payload }) => seen.push(`${dlqKey} ${payload}`))
    }
    const [{ manager }] = managers as [typeof managers[0]]
    await manager.subscribe("a", (message) => message.reject())
    for (let n = 0; n < 5; n++) await manager.publish("a", n)
    await until(() => seen.length === 10)
    const numbers = [0, 1, 2, 3, 4]
    assert.deepStrictEqual(seen.toSorted(), ["x", "y"].flatMap((key) => numbers.map((n) => `${key} ${n}`)))
  })

  it("two managers: each message goes to one of them, and to every group", async () => {
    const prefix = freshPrefix()
    const seen: Array<string> = []
    for (const name of ["one", "two"]) {
      const manager = managed({ redis: redisUrl, prefix })
      await manager.subscribe("orders.*", async ({ payload }) => void seen.push(`billing ${payload}`), {
        group: "billing"
      })
      await manager.subscribe("orders.*", async ({ payload }) => void seen.push(`${name} ${payload}`), { group: name })
    }
    const publisher = managed({ redis: redisUrl, prefix })
    for (let n = 0; n < 10; n++) await publisher.publish("orders.placed", n)
    await until(() => seen.length === 30)
    const numbers = Array.from({ length: 10 }, (_, n) => n)
    assert.deepStrictEqual(
      seen.toSorted(),
      ["billing", "one", "two"].flatMap((name) => numbers.map((n) => `${name} ${n}`))
    )
  })
})
