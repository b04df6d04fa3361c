/** Durable publishes on real servers with a replica: it has the message, or the publisher is told that it may not. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer, Logger, Queue, References, Schema } from "effect"
import { Channel, Publisher, Redis, Rotif, Scheduler } from "rotif"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix, listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

/** A master and a replica that is in step. */
const pair = Effect.fnUntraced(function*(config: RedisServer.Config = {}) {
  const master = yield* RedisServer.make({ "repl-diskless-sync-delay": "0", ...config })
  const replica = yield* RedisServer.make({ replicaof: `${master.host} ${master.port}`, ...config })
  while (!String(yield* master.command("info", "replication")).includes("state=online")) yield* Effect.sleep(20)
  yield* master.command("set", "first", "x")
  assert.strictEqual(yield* master.command("wait", 1, 10_000), 1)
  yield* master.command("config", "resetstat")
  return { master, replica }
})

const lengthAt = (server: RedisServer.RedisServer, prefix: string) =>
  Effect.map(server.command("xlen", `{${prefix}:0}:log:texts`), Number)

const calls = (server: RedisServer.RedisServer, command: string) =>
  Effect.map(
    server.command("info", "commandstats"),
    (stats) => Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(String(stats))?.[1] ?? 0)
  )

/** WAITAOF came with Redis 7.2. */
const knowsWaitaof = Effect.gen(function*() {
  const server = yield* RedisServer.make()
  const [found] = (yield* server.command("command", "info", "waitaof")) as ReadonlyArray<unknown>
  return found !== null
})

const durable = { durability: { replicas: 1, timeout: "5 seconds" } } as const
const impatient = { durability: { replicas: 1, timeout: "300 millis" } } as const

describe("Publisher.publish with durability", () => {
  it.live("succeeds when the replica has the message, however it is published", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "plain", durable)
        // Replication goes on by itself: it is in time that it is told.
        assert.strictEqual(yield* lengthAt(replica, prefix), 1)
        yield* Publisher.publish(Text, "with an id", { ...durable, id: "x" })
        assert.strictEqual(yield* lengthAt(replica, prefix), 2)
        const again = yield* Publisher.publish(Text, "again", { ...durable, id: "x" })
        assert.strictEqual(again._tag, "Duplicate")
        const later = yield* Publisher.publish(Text, "later", { ...durable, delay: "1 hour" })
        assert.strictEqual(later._tag, "Scheduled")
        assert.strictEqual(yield* replica.command("zcard", `{${prefix}:0}:waiting`), 1)
        const receipts = yield* Publisher.publishAll(Text, Array.from({ length: 1_200 }, String), durable)
        assert.strictEqual(receipts.length, 1_200)
        assert.strictEqual(yield* lengthAt(replica, prefix), 1_202)
        assert.strictEqual(yield* calls(master, "wait"), 6, "one to see that it can, one for each publish")
      }).pipe(Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("says that it is stored and not replicated when the replica is frozen, and stores a repetition once", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "first", durable)
        yield* replica.stop
        const startedAt = performance.now()
        const error = yield* Effect.flip(Publisher.publish(Text, "second", impatient))
        const tookMillis = performance.now() - startedAt
        assert(error._tag === "DurabilityNotReached")
        assert.deepInclude(error, { channel: "texts", replicas: 0 })
        assert.deepInclude(error.receipt, { _tag: "Published", id: error.id })
        assert.match(error.message, /is stored, but only 0 of 1 replicas/)
        assert.isAtLeast(tookMillis, 300)
        assert.strictEqual(yield* lengthAt(master, prefix), 2)
        assert.deepStrictEqual((yield* Queue.takeN(seen, 2)).map(({ payload }) => payload), ["first", "second"])

        // While nothing has changed, a repetition says the same; also one that is found by its window, and finds, not writes.
        const same = yield* Effect.flip(Publisher.publish(Text, "second", { ...impatient, id: error.id }))
        assert.deepInclude(same, { _tag: "DurabilityNotReached", id: error.id })
        const third = yield* Effect.flip(Publisher.publish(Text, "second", { ...impatient, id: error.id }))
        assert(third._tag === "DurabilityNotReached")
        assert.strictEqual(third.receipt._tag, "Duplicate")
        const scheduled = yield* Effect.flip(
          Publisher.publish(Text, "later", { ...impatient, delay: "1 hour", id: "l" })
        )
        assert.deepInclude(scheduled, { _tag: "DurabilityNotReached", id: "l" })
        yield* replica.cont
        yield* Publisher.publish(Text, "second", { ...durable, id: error.id })
        const before = yield* Publisher.publish(Text, "later", { ...durable, delay: "1 hour", id: "l" })
        assert.strictEqual(before._tag, "Scheduled")
        assert.strictEqual(yield* Scheduler.count(), 1)
        yield* Publisher.publish(Text, "last", durable)
        assert.strictEqual((yield* Queue.take(seen)).payload, "last")
        assert.strictEqual(yield* lengthAt(replica, prefix), 3)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("reports for each message of a batch, in terms of the operation", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* replica.stop
        const error = yield* Effect.flip(
          Publisher.publishAll(Text, ["a", "b", "c"], (text) => text === "b" ? { durability: false } : impatient)
        )
        assert(error._tag === "PublishIncomplete")
        assert.deepStrictEqual(error.outcomes.map(({ _tag }) => _tag), [
          "DurabilityNotReached",
          "Published",
          "DurabilityNotReached"
        ])
        assert.match(error.message, /^2 of 3 messages for "texts" are stored, but not as durably as asked for/)
        assert.strictEqual(yield* lengthAt(master, prefix), 3)
      }).pipe(Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("holds up neither publishes without it nor new durable ones for longer than a moment", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "one", durable)
        yield* replica.stop
        const patient = yield* Effect.forkScoped(Effect.flip(
          Publisher.publish(Text, "two", { durability: { timeout: "1 minute" } })
        ))
        while ((yield* calls(master, "wait")) < 3) yield* Effect.sleep(5)
        yield* Publisher.publish(Text, "three")
        const error = yield* Effect.flip(Publisher.publish(Text, "four", impatient))
        assert.strictEqual(error._tag, "DurabilityNotReached")
        assert.isUndefined(patient.pollUnsafe())
        assert.strictEqual(yield* lengthAt(master, prefix), 4)
        yield* replica.cont
        yield* Fiber.interrupt(patient)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("shares one WAIT among those who wait at the same time", () =>
    Effect.gen(function*() {
      const { master } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "first", durable)
        yield* Effect.forEach(Array.from({ length: 300 }, String), (text) => Publisher.publish(Text, text, durable), {
          concurrency: "unbounded"
        })
        assert.isBelow(yield* calls(master, "wait"), 30)
        const clients = String(yield* master.command("client", "list"))
        assert.strictEqual(clients.split("name=rotif:durable").length - 1, 1)
      }).pipe(Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("says so when the master is lost meanwhile", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "one", durable)
        yield* replica.stop
        const before = yield* calls(master, "wait")
        const fiber = yield* Effect.forkScoped(Effect.flip(
          Publisher.publish(Text, "two", { durability: { timeout: "1 minute" } })
        ))
        while ((yield* calls(master, "wait")) < before + 2) yield* Effect.sleep(5)
        yield* master.kill
        const error = yield* Fiber.join(fiber)
        assert(error._tag === "DurabilityNotReached")
        assert.strictEqual(error.receipt._tag, "Published")
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: master.url, prefix, drainTimeout: 0 })))
    }).pipe(Effect.scoped))

  it.live("opens no connection and sends no further command unless it is used", () =>
    Effect.gen(function*() {
      const { master } = yield* pair()
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "one")
        yield* Publisher.publishAll(Text, ["two", "three"])
        assert.notInclude(String(yield* master.command("client", "list")), "name=rotif:durable")
        assert.strictEqual(yield* calls(master, "wait"), 0)
      }).pipe(Effect.provide(Rotif.layer({ url: master.url, prefix })))
    }).pipe(Effect.scoped))

  it.live("waits at the node that has the channel, in a Cluster", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make({ replicas: 1 })
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        const channels = Array.from({ length: 12 }, (_, i) => Channel.make(`texts.${i}`, { payload: Schema.String }))
        for (const channel of channels) yield* Publisher.publish(channel, "x", durable)
        const waits = yield* Effect.forEach(cluster.nodes.slice(0, 3), (node) => calls(node, "wait"))
        assert.isAtLeast(Math.min(...waits), 2)
        // The replica of the second master.
        yield* cluster.node(4).stop
        const results = yield* Effect.forEach(channels, (channel) =>
          Effect.result(Publisher.publish(channel, "y", impatient)), { concurrency: "unbounded" })
        const tags = results.map((result) =>
          result._tag === "Success" ? "reached" : result.failure._tag
        )
        assert.sameMembers([...new Set(tags)], ["reached", "DurabilityNotReached"])
      }).pipe(Effect.provide(Rotif.layer({
        cluster: cluster.nodes.map(({ host, port }) => ({ host, port })),
        prefix,
        shards: 8
      })))
    }).pipe(Effect.scoped), 60_000)
})

describe("Rotif.layer with durability", () => {
  it.live("asks for it in every publish that does not say otherwise; the environment can say it", () =>
    Effect.gen(function*() {
      const { master, replica } = yield* pair()
      yield* replica.stop
      const publish = Effect.gen(function*() {
        const error = yield* Effect.flip(Publisher.publish(Text, "x"))
        assert.strictEqual(error._tag, "DurabilityNotReached")
        assert.strictEqual((yield* Publisher.publish(Text, "x", { durability: false }))._tag, "Published")
      })
      yield* Effect.provide(publish, Rotif.layer({ url: master.url, prefix: freshPrefix(), ...impatient }))
      yield* Effect.provide(
        publish,
        Rotif.layerConfig({ prefix: freshPrefix() }).pipe(
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({
            REDIS_URL: master.url,
            ROTIF_DURABILITY_REPLICAS: "1",
            ROTIF_DURABILITY_TIMEOUT: "300 millis"
          })))
        )
      )
    }).pipe(Effect.scoped))

  it.live("warns when there are fewer replicas than it asks for", () =>
    Effect.gen(function*() {
      const { master } = yield* pair()
      const logged: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => void logged.push(String(message)))
      const start = (replicas: number) =>
        Effect.provide(
          Effect.void,
          Layer.provide(
            Rotif.layer({ url: master.url, prefix: freshPrefix(), durability: { replicas } }),
            Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "Warn"))
          )
        )
      yield* start(1)
      assert.notInclude(logged.join(), "durability")
      yield* start(2)
      assert.include(logged.join(), "durability asks for 2 replicas, and a server has 1 that answer")
    }).pipe(Effect.scoped))

  it.live("with fsync is refused at the start by a server without WAITAOF or append-only file, with the remedy", () =>
    Effect.gen(function*() {
      const build = (config: RedisServer.Config) =>
        Effect.gen(function*() {
          const { url } = yield* RedisServer.make(config)
          const all = { url, prefix: freshPrefix(), durability: { fsync: true } }
          return yield* Effect.flip(Effect.provide(Effect.void, Rotif.layer(all)))
        })
      const hasIt = yield* knowsWaitaof
      const without = yield* build(hasIt ? { "rename-command": `WAITAOF ""` } : {})
      assert.deepInclude(without, { _tag: "BrokerError", reason: "Refused" })
      assert.match(without.message, /WAITAOF, which Redis has from 7\.2 on: use a newer server, or leave fsync out/)
      if (hasIt) assert.match((yield* build({})).message, /needs the command WAITAOF .* and appendonly yes/)
    }).pipe(Effect.scoped))

  it.live("with fsync succeeds when the message is on the disk, where the server has WAITAOF", () =>
    Effect.gen(function*() {
      const hasIt = yield* knowsWaitaof
      const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "everysec" })
      const prefix = freshPrefix()
      const published = yield* Effect.result(
        Publisher.publish(Text, "x", { durability: { replicas: 0, fsync: true, timeout: "10 seconds" } }).pipe(
          Effect.provide(Rotif.layer({ url: server.url, prefix }))
        )
      )
      assert.strictEqual(published._tag, hasIt ? "Success" : "Failure")
      yield* server.kill
      yield* server.restart
      const kept = yield* server.command("xlen", `{${prefix}:0}:log:texts`)
      assert.strictEqual(kept, hasIt ? 1 : 0)
    }).pipe(Effect.scoped))

  it.live("is refused before anything is stored when a publish needs a durability that the server cannot give", () =>
    Effect.gen(function*() {
      const { master } = yield* pair({ user: "weak on >pw ~* &* +@all -wait" })
      const prefix = freshPrefix()
      yield* Effect.gen(function*() {
        const fsync = yield* Effect.flip(Publisher.publish(Text, "x", { durability: { fsync: true } }))
        assert.deepInclude(fsync, { _tag: "BrokerError", reason: "Refused" })
        const wait = yield* Effect.flip(Publisher.publish(Text, "x", durable))
        assert.deepInclude(wait, { _tag: "BrokerError", reason: "Refused" })
        assert.match(wait.message, /\+wait/)
        assert.strictEqual(yield* lengthAt(master, prefix), 0)
        yield* Publisher.publish(Text, "x")
      }).pipe(Effect.provide(Rotif.layer({ url: master.url, username: "weak", password: "pw", prefix })))
    }).pipe(Effect.scoped))
})

describe("Redis.durable", () => {
  /** A stand-in that replies what it is to: LRANGE takes as many arguments as WAITAOF, and the key "1" holds the reply. */
  it.live("reads the reply of WAITAOF: the master's disk, and the replicas'", () =>
    Effect.gen(function*() {
      const away = (yield* knowsWaitaof) ? [`WAITAOF ""`] : []
      const server = yield* RedisServer.make({ "rename-command": [...away, "LRANGE WAITAOF"] })
      const confirm = Effect.gen(function*() {
        const connection = (yield* Redis.Redis).durable("k")
        yield* connection.send(["set", "k", "v"], { idempotent: true })
        return yield* connection.confirm({ replicas: 0, onDisk: true, timeoutMillis: 50 })
      }).pipe(Effect.provide(Redis.layer({ url: server.url })))
      const outcomes = yield* Effect.forEach([["1", "2"], ["0", "2"], ["1", "0"]], ([local = "", replicas = ""]) =>
        Effect.gen(function*() {
          // WAITAOF 1 0 50 is answered with the list "1".
          yield* server.command("del", "1")
          yield* server.command("rpush", "1", local, replicas)
          const { isReached, replicas: count } = yield* confirm
          return [isReached, count]
        }))
      assert.deepStrictEqual(outcomes, [[true, 2], [false, 2], [true, 0]])
    }).pipe(Effect.scoped))
})
