import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { TestConsole } from "effect/testing"
import { Cluster, Redis as Client } from "ioredis"
import { createHook } from "node:async_hooks"
import { inspect } from "node:util"
import { parse, problemOf } from "../../src/redis/serverInfo.ts"
import { classify, messageOf } from "../../src/redis/protocol.ts"
import * as Redis from "../../src/Redis.ts"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

const quick = { commandTimeout: 400, connectTimeout: 300, startTimeout: "2 seconds" } as const
const once = { idempotent: false }
const again = { idempotent: true }
const isXadd = (request: Buffer) => request.includes("xadd")
const add = (key: string, value: string | number): Redis.Command => ["xadd", key, "*", "v", value]

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(effect, (value) => [value, performance.now() - from] as const)
  })

/** Waits for what the server is seen to do: nothing in this process tells when a command has begun to block. */
const until = <E>(check: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.flatMap(
    check,
    (done) => done ? Effect.void : Effect.andThen(Effect.promise(() => new Promise(setImmediate)), until(check))
  )

/** How many timers run that such code has set from now on; those of the other tests and of what runs them are none of ours. */
const timersOf = (code: RegExp) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const running = new Set<number>()
      const hook = createHook({
        init: (id, type) => {
          if (type === "Timeout" && code.test(new Error().stack ?? "")) running.add(id)
        },
        destroy: (id) => void running.delete(id)
      })
      return { running, hook: hook.enable() }
    }),
    ({ hook }) => Effect.sync(() => hook.disable())
  ).pipe(Effect.map(({ running }) => () => running.size))

const isBlocked = (server: RedisServer.RedisServer) =>
  Effect.map(server.command("info", "clients"), (text) => String(text).includes("blocked_clients:1"))

const proxied = Effect.fnUntraced(function*(options?: Partial<Redis.CommonOptions>) {
  const server = yield* RedisServer.make()
  const proxy = yield* TcpProxy.make(server)
  const redis = yield* Redis.make({ url: proxy.url, ...quick, ...options })
  return { server, proxy, redis, connection: redis.connection("k") }
})

describe("messageOf", () => {
  it("names no user, as servers from 7.2 on do", () => {
    const told = "this user has no permissions to run the 'xack' command"
    const said = "User of-a-url has no permissions to run the 'xack' command"
    assert.strictEqual(messageOf(new Error(`NOPERM ${said}`)), `NOPERM ${told}`)
    assert.strictEqual(messageOf(`ERR ACL failure in script: ${said}`), `ERR ACL failure in script: ${told}`)
  })
})

describe("classify", () => {
  it.each([
    ["OOM command not allowed when used memory > 'maxmemory'.", "OutOfMemory"],
    ["NOGROUP No such key 'k' or consumer group 'g'", "NoGroup"],
    ["UNBLOCKED the stream key no longer exists", "Transient"],
    ["NOREPLICAS Not enough good replicas to write.", "Transient"],
    ["BUSY Redis is busy running a script.", "Transient"],
    ["BUSYGROUP Consumer Group name already exists", "Refused"],
    ["ERR max number of clients reached", "Transient"],
    ["READONLY You can't write against a read only replica.", "Transient"],
    ["WRONGTYPE Operation against a key", "Refused"],
    ["NOPERM this user has no permissions", "Refused"]
  ])("%s", (message, reason) => {
    assert.strictEqual(classify(Object.assign(new Error(message), { name: "ReplyError" })), reason)
  })

  it("takes whatever the server did not say for a lost connection", () => {
    assert.strictEqual(classify(new Error("Connection is closed.")), "ConnectionLost")
  })
})

describe("the look at the server", () => {
  const info = (fields: Record<string, string>) =>
    problemOf(parse(Object.entries(fields).map(([name, value]) => `${name}:${value}\r\n`).join("")), "standalone")

  it("refuses old versions and other kinds, waits for loading servers and replicas", () => {
    assert.deepInclude(info({ redis_version: "6.2.14" }), { isLasting: true })
    assert.deepInclude(info({ redis_version: "7.0.0", redis_mode: "cluster" }), { isLasting: true })
    assert.deepInclude(info({ redis_version: "7.2.4", server_mode: "cluster" }), { isLasting: true }, "Valkey")
    assert.deepInclude(info({ redis_version: "7.0.0", redis_mode: "sentinel" }), { isLasting: true })
    assert.deepInclude(info({ redis_version: "7.0.0", loading: "1" }), { isLasting: false })
    assert.deepInclude(info({ redis_version: "7.0.0", role: "slave" }), { isLasting: false })
    assert.isUndefined(info({ redis_version: "10.0.1", redis_mode: "standalone", role: "master", loading: "0" }))
    assert.isUndefined(info({}))
  })
})

describe("Connection", () => {
  it.effect("gives replies in order, refusals in their places, without arguments", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const { connection } = yield* Redis.make({ url: server.url })
      const replies = yield* connection("k").pipeline([
        ["set", "k", "1"],
        ["xadd", "k", "*", "v", "canary"],
        ["nosuch", "canary"],
        ["get", "k"]
      ])
      assert.strictEqual(replies[0], "OK")
      assert.deepInclude(replies[1], { _tag: "RedisError", reason: "Refused", command: "xadd" })
      assert.deepInclude(replies[2], { reason: "Refused", message: "ERR unknown command 'nosuch'" })
      assert.strictEqual(replies[3], "1")
      assert.notInclude(inspect(replies, { depth: 9 }) + JSON.stringify(replies), "canary")
    }))

  it.effect("runs a script that the server has forgotten", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const connection = (yield* Redis.make({ url: server.url, ...quick })).connection("k")
      const script = { name: "echo", lua: "return {KEYS[1], ARGV[1]}" }
      const run = connection.evaluate(script, ["k"], [1])
      assert.deepStrictEqual(yield* run, ["k", "1"])
      yield* server.command("script", "flush")
      assert.deepStrictEqual(yield* run, ["k", "1"])
      yield* server.restart
      assert.deepStrictEqual(yield* connection.evaluate({ ...script, isIdempotent: true }, ["k"], [2]), ["k", "2"])
      const failed = yield* Effect.flip(
        connection.evaluate({ name: "bad", lua: "return redis.call('get')" }, [], [])
      )
      assert.deepInclude(failed, { reason: "Refused", command: "bad" })
    }))

  it.effect("reports a lost reply and does not repeat the command", () =>
    Effect.gen(function*() {
      const { connection, proxy, server } = yield* proxied()
      yield* proxy.dropReplyOnce(isXadd)
      assert.strictEqual((yield* Effect.flip(connection.send(add("k", 1), once))).reason, "ConnectionLost")
      assert.strictEqual(yield* connection.send(["xlen", "k"], again), 1)

      yield* proxy.dropReplyOnce((request) => isXadd(request) && request.includes("last"))
      const lost = yield* Effect.flip(connection.pipeline([add("p", "first"), add("p", "second"), add("p", "last")]))
      assert.strictEqual(lost.reason, "ConnectionLost")
      assert.strictEqual(yield* connection.send(["xlen", "p"], again), 3)
      // The connections that were lost were ended at the server before anything else was sent to it.
      assert.match(String(yield* server.command("info", "commandstats")), /cmdstat_client\|kill:calls=2,/)
    }))

  it.effect("repeats an idempotent command whose reply was lost", () =>
    Effect.gen(function*() {
      const { connection, proxy } = yield* proxied()
      const dropped = yield* proxy.dropReplyOnce((request) => request.includes("hset"))
      assert.strictEqual(yield* connection.send(["hset", "h", "f", "v"], again), 0)
      yield* dropped
    }))

  it.effect("waits for a server that is down, as long and with as many callers as it may", () =>
    Effect.gen(function*() {
      const { connection, server } = yield* proxied({ maxWaiting: 2 })
      yield* server.kill
      yield* Effect.flip(connection.send(["ping"], once))
      const waiting = yield* Effect.forkChild(
        Effect.all([0, 1].map(() => elapsed(Effect.flip(connection.send(["ping"], again)))), { concurrency: 2 }),
        { startImmediately: true }
      )
      const [tooMany, atOnce] = yield* elapsed(Effect.flip(connection.send(["ping"], again)))
      assert.deepInclude(tooMany, { reason: "Unavailable", message: "2 callers wait for a connection already" })
      assert.isBelow(atOnce, 100)
      for (const [error, millis] of yield* Fiber.join(waiting)) {
        assert.strictEqual(error.reason, "Unavailable")
        assert.match(error.message, /^no connection since \d{4}-.*Z \(127.0.0.1:\d+: /)
        assert.isAtLeast(millis, 390)
        assert.isBelow(millis, 1000)
      }
    }))

  it.effect("finds a server that was killed and came back", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ appendonly: "yes" })
      const connection = (yield* Redis.make({ url: server.url, ...quick, commandTimeout: "5 seconds" })).connection("k")
      yield* connection.send(add("k", 1), once)
      yield* server.kill
      const send = yield* Effect.forkChild(connection.send(["xlen", "k"], again), { startImmediately: true })
      yield* server.restart
      assert.strictEqual(yield* Fiber.join(send), 1)
    }))

  it.effect("gives a frozen server up, and finds it again", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const connection = (yield* Redis.make({ url: server.url, ...quick })).connection("k")
      yield* server.stop
      const [lost, millis] = yield* elapsed(Effect.flip(connection.send(add("k", 1), once)))
      assert.strictEqual(lost.reason, "ConnectionLost")
      assert.isBelow(millis, 1500)
      assert.strictEqual((yield* Effect.flip(connection.send(["ping"], once))).reason, "Unavailable")
      yield* server.cont
      const stored = yield* connection.send(["xlen", "k"], again)
      yield* connection.send(add("k", 2), once)
      assert.strictEqual(yield* connection.send(["xlen", "k"], again), Number(stored) + 1)
    }))
})

describe("Redis.make", () => {
  it.effect("fails in time when the server accepts and never answers", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* server.stop
      const [error, millis] = yield* elapsed(Effect.flip(Redis.make({ url: server.url, ...quick, startTimeout: 700 })))
      assert.strictEqual(error.reason, "Unavailable")
      assert.include(error.message, "no answer within 300 ms")
      assert.isBelow(millis, 1500)
      yield* server.cont
    }))

  it.effect("refuses a wrong password at once, and shows it nowhere", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ requirepass: "right" })
      const address = { host: server.host, port: server.port }
      const password = Redacted.make("canary-password")
      const options: ReadonlyArray<Redis.Options> = [
        { ...address, password },
        { ...address, username: "canary-user", password },
        { url: `redis://canary-user:canary-password@${server.host}:${server.port}` },
        { url: "redis://canary-user:canary-password@" },
        { cluster: [address], password },
        { ...address },
        { client: new Client({ ...address, password: "canary-password", lazyConnect: true }) }
      ]
      for (const each of options) {
        const [exit, millis] = yield* elapsed(Effect.exit(Redis.make(each)))
        assert.isBelow(millis, 1000)
        const error = Exit.isFailure(exit) ? exit.cause : Cause.empty
        const shown = inspect(exit, { depth: 9 }) + JSON.stringify(exit) + Cause.pretty(error)
        assert.include(shown, "Refused")
        assert.notInclude(shown, "canary")
      }
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Redis.make({ ...address, password: "right" }))))
    }))

  it.effect("refuses a database that does not exist, a Cluster as a server, and unknown servers over TLS", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const node = yield* RedisServer.make({ "cluster-enabled": "yes" })
      const refuse = (options: Redis.Options) => Effect.flip(Redis.make(options))
      assert.match((yield* refuse({ url: `${server.url}/99` })).message, /DB index is out of range/)
      assert.match((yield* refuse({ url: node.url })).message, /part of a Cluster/)
      assert.match((yield* refuse({ cluster: [server] })).message, /cluster support disabled|not part of a Cluster/)
      assert.match((yield* refuse({ url: server.url, tls: { rejectUnauthorized: false } })).message, /insecure: true/)
      assert.match((yield* refuse({ url: "http://localhost" })).message, /not of the form/)
    }))

  it.effect("takes the options of a client, and leaves the client alone", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ requirepass: "secret" })
      const client = new Client({ host: server.host, port: server.port, password: "secret", db: 3, lazyConnect: true })
      const redis = yield* Redis.make({ client })
      yield* redis.connection("k").send(["set", "k", "v"], again)
      assert.strictEqual(client.status, "wait")
      assert.match(String(yield* server.command("info", "keyspace")), /db3:keys=1/)

      const lazyConnect = true
      const prefixed = yield* Effect.flip(Redis.make({ client: new Client({ keyPrefix: "p:", lazyConnect }) }))
      assert.match(prefixed.message, /keyPrefix/)
      const mapped = new Client({ replyMapping: "resp3", lazyConnect }) as unknown as Client
      assert.match((yield* Effect.flip(Redis.make({ client: mapped }))).message, /resp3/)
    }))

  it.effect("warns of a server that forgets or evicts", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ "maxmemory-policy": "allkeys-lru" })
      yield* Redis.make({ url: server.url })
      const shown = inspect(yield* TestConsole.logLines)
      assert.match(shown, /maxmemory-policy is allkeys-lru/)
      assert.match(shown, /neither appendonly nor save/)
    }))

  it.effect("reads its options from the environment", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ requirepass: "secret" })
      const env = (record: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnvRecord(record))
      const ping = Redis.Redis.use((redis) => redis.connection("k").send(["ping"], again))
      const url = `redis://${server.host}:${server.port}`
      const run = (record: Record<string, string>) =>
        ping.pipe(Effect.provide(Redis.layerConfig().pipe(Layer.provide(env(record)))))
      assert.strictEqual(
        yield* run({ REDIS_URL: url, REDIS_PASSWORD: "secret", REDIS_CONNECT_TIMEOUT: "1 second" }),
        "PONG"
      )
      const provider = ConfigProvider.fromEnvRecord({ REDIS_SENTINELS: "a:1,[::1]:2", REDIS_SENTINEL_NAME: "main" })
      assert.deepInclude(yield* Redis.config.parse(provider), {
        sentinels: [{ host: "a", port: 1 }, { host: "::1", port: 2 }],
        name: "main"
      })
    }))

  it.effect("closes every socket and timer with its scope", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const timers = yield* timersOf(/\/src\/(?:Redis\.ts|internal\/redis)|\/ioredis\//)
      const scope = yield* Scope.make()
      yield* Effect.gen(function*() {
        const redis = yield* Redis.make({ url: proxy.url })
        const reader = yield* redis.blocking("k")
        yield* reader.send(["ping"], 1000)
        yield* redis.listen(["c"], { onMessage: () => {}, onGap: () => {} })
        assert.strictEqual(proxy.connections(), 3)
        assert.isAbove(timers(), 0)
      }).pipe(Scope.provide(scope))
      yield* Scope.close(scope, Exit.void)
      yield* until(Effect.sync(() => proxy.connections() === 0))
      // The client lets go of a socket a moment after its end.
      yield* until(Effect.sync(() => timers() === 0))
    }))
})

describe("BlockingConnection", () => {
  const read: Redis.Command = ["xreadgroup", "GROUP", "g", "c", "BLOCK", 10_000, "STREAMS", "k", ">"]
  const group: Redis.Command = ["xgroup", "create", "k", "g", "0", "MKSTREAM"]

  it.effect("returns from a blocked read at once when it is asked to", () =>
    Effect.gen(function*() {
      const { connection, redis } = yield* proxied({ commandTimeout: "5 seconds" })
      const reader = yield* redis.blocking("k")
      yield* connection.send(group, once)
      assert.strictEqual(reader.generation(), 0)
      let received = 0
      for (let i = 0; i < 50; i++) {
        // The wake-up races with a message: whatever was handed out must have been returned.
        const fiber = yield* Effect.forkChild(elapsed(reader.send(read, 12_000)), { startImmediately: true })
        yield* Effect.all([reader.unblock, connection.send(add("k", i), once)], { concurrency: 2 })
        const [reply, millis] = yield* Fiber.join(fiber)
        assert.isBelow(millis, 1000)
        received += Array.isArray(reply) ? reply[0][1].length : 0
      }
      const [[, , , entriesRead]] = (yield* connection.send(["xinfo", "groups", "k"], again)) as [Array<unknown>]
      assert.isDefined(entriesRead)
      const [pending] = (yield* connection.send(["xpending", "k", "g"], again)) as [number]
      assert.strictEqual(pending, received)
      assert.strictEqual(reader.generation(), 1)
    }))

  it.effect("replaces a half-open connection after the deadline", () =>
    Effect.gen(function*() {
      const { connection, proxy, redis, server } = yield* proxied()
      const reader = yield* redis.blocking("k")
      yield* connection.send(group, once)
      const fiber = yield* Effect.forkChild(elapsed(Effect.flip(reader.send(read, 500))), { startImmediately: true })
      yield* until(isBlocked(server))
      yield* proxy.pause
      const [lost, millis] = yield* Fiber.join(fiber)
      assert.strictEqual(lost.reason, "ConnectionLost")
      assert.isBelow(millis, 1500)
      yield* proxy.resume
      assert.strictEqual(yield* reader.send(["ping"], 500), "PONG")
      assert.strictEqual(reader.generation(), 2)
    }))

  it.effect("gives the last reply to whoever waits when its scope closes", () =>
    Effect.gen(function*() {
      const { connection, redis, server } = yield* proxied({ commandTimeout: "5 seconds" })
      const scope = yield* Scope.make()
      const reader = yield* redis.blocking("k").pipe(Scope.provide(scope))
      yield* connection.send(group, once)
      const fiber = yield* Effect.forkChild(reader.send(read, 12_000), { startImmediately: true })
      yield* until(isBlocked(server))
      const [, millis] = yield* elapsed(Scope.close(scope, Exit.void))
      assert.isBelow(millis, 500)
      assert.isNull(yield* Fiber.join(fiber))
      assert.strictEqual((yield* Effect.flip(reader.send(read, 12_000))).reason, "Unavailable")
    }))

  it.effect("closes in bounded time when the server is frozen", () =>
    Effect.gen(function*() {
      const { connection, redis, server } = yield* proxied({ commandTimeout: "5 seconds" })
      const scope = yield* Scope.make()
      const reader = yield* redis.blocking("k").pipe(Scope.provide(scope))
      yield* connection.send(group, once)
      const fiber = yield* Effect.forkChild(Effect.flip(reader.send(read, 12_000)), { startImmediately: true })
      yield* until(isBlocked(server))
      yield* server.stop
      const [, millis] = yield* elapsed(Scope.close(scope, Exit.void))
      assert.isBelow(millis, 1500)
      assert.strictEqual((yield* Fiber.join(fiber)).reason, "ConnectionLost")
      yield* server.cont
    }))

  it.effect("takes a new socket after an interrupted read", () =>
    Effect.gen(function*() {
      const { connection, redis, server } = yield* proxied()
      const reader = yield* redis.blocking("k")
      yield* connection.send(group, once)
      const fiber = yield* Effect.forkChild(reader.send(read, 12_000), { startImmediately: true })
      yield* until(isBlocked(server))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* reader.send(["ping"], 500), "PONG")
      assert.strictEqual(reader.generation(), 2)
    }))
})

describe("Redis.listen", () => {
  const recorder = () => {
    const seen: Array<string> = []
    return {
      seen,
      onMessage: (channel: string, message: string) => void seen.push(`${channel}:${message}`),
      onGap: () => void seen.push("gap")
    }
  }

  it.effect("hears its channels, tells of a gap after a restart, and goes on", () =>
    Effect.gen(function*() {
      const { connection, redis, server } = yield* proxied({ commandTimeout: "3 seconds" })
      const both = recorder()
      yield* redis.listen(["a", "b"], both)
      const shortly = recorder()
      const scope = yield* Scope.make()
      yield* redis.listen(["a"], shortly).pipe(Scope.provide(scope))
      const publish = (channel: string, message: string) => connection.send(["publish", channel, message], again)
      assert.strictEqual(yield* publish("a", "1"), 1)
      yield* until(Effect.sync(() => shortly.seen.length === 1))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* publish("a", "2"), 1)
      // What is on its way when the server goes is lost.
      yield* until(Effect.sync(() => both.seen.length === 2))
      yield* server.restart
      yield* until(Effect.sync(() => both.seen.includes("gap")))
      yield* publish("b", "3")
      yield* until(Effect.sync(() => both.seen.length === 4))
      assert.deepStrictEqual(both.seen, ["a:1", "a:2", "gap", "b:3"])
      assert.deepStrictEqual(shortly.seen, ["a:1"])
    }))

  it.effect("notices a half-open connection", () =>
    Effect.gen(function*() {
      const { proxy, redis } = yield* proxied()
      const listener = recorder()
      yield* redis.listen(["a"], listener)
      yield* proxy.pause
      yield* until(Effect.sync(() => proxy.connections() > 2))
      yield* proxy.resume
      yield* until(Effect.sync(() => listener.seen.includes("gap")))
    }))

  it.effect("fails when it cannot subscribe in time, or may not", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ user: ["alice on >pw ~* resetchannels &ok +@all"] })
      const redis = yield* Redis.make({
        host: server.host,
        port: server.port,
        username: "alice",
        password: "pw",
        ...quick
      })
      assert.strictEqual((yield* Effect.flip(redis.listen(["no"], recorder()))).reason, "Refused")
      yield* redis.listen(["ok"], recorder())
      yield* server.stop
      assert.strictEqual((yield* Effect.flip(redis.listen(["ok2"], recorder()))).reason, "Unavailable")
      yield* server.cont
    }))
})

describe("Cluster", () => {
  it.effect("follows moved slots and lost replies, and stores once", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make()
      const { natMap, proxies } = yield* TcpProxy.makeCluster(cluster)
      const redis = yield* Redis.make({
        cluster: [{ host: "127.0.0.1", port: proxies[0]!.port }],
        natMap,
        ...quick,
        commandTimeout: "2 seconds"
      })
      const { node } = cluster
      // Slot 12182, of the last node.
      const key = "foo"
      const slot = 12_182
      const connection = redis.connection(key)
      const reader = yield* redis.blocking(key)
      yield* connection.send(["xgroup", "create", key, "g", "0", "MKSTREAM"], once)
      yield* proxies[2]!.dropReplyOnce(isXadd)
      assert.strictEqual((yield* Effect.flip(connection.send(add(key, 1), once))).reason, "ConnectionLost")
      assert.strictEqual(yield* connection.send(["xlen", key], again), 1)
      const read: Redis.Command = ["xreadgroup", "GROUP", "g", "c", "STREAMS", key, ">"]
      assert.isArray(yield* reader.send(read, 2000))

      // Half-way: the key is at the target already, the slot is not.
      const [from, to] = [yield* node(2).command("cluster", "myid"), yield* node(0).command("cluster", "myid")].map(
        String
      )
      yield* node(0).command("cluster", "setslot", slot, "importing", from!)
      yield* node(2).command("cluster", "setslot", slot, "migrating", to!)
      yield* node(2).command("migrate", node(0).host, node(0).port, key, 0, 1000)
      assert.deepStrictEqual((yield* connection.pipeline([add(key, 2), add(key, 3)])).map((reply) => typeof reply), [
        "string",
        "string"
      ])
      for (const each of [0, 2, 1]) yield* node(each).command("cluster", "setslot", slot, "node", to!)
      yield* connection.send(add(key, 4), once)
      assert.strictEqual(yield* node(0).command("xlen", key), 4)

      const moved = yield* Effect.flip(reader.send(read, 2000))
      assert.deepInclude(moved, { reason: "Transient" })
      const rest = (yield* reader.send(read, 2000)) as Array<[string, Array<unknown>]>
      assert.strictEqual(rest[0]![1].length, 3)
      assert.strictEqual(reader.generation(), 2)
    }), 40_000)

  it.effect(
    "takes the options of a Cluster client, and goes to the replica that takes over",
    () =>
      Effect.gen(function*() {
        const cluster = yield* RedisCluster.make({ replicas: 1 })
        const nodes = cluster.nodes.map(({ host, port }) => ({ host, port }))
        const client = new Cluster(nodes.slice(0, 2), { lazyConnect: true })
        const redis = yield* Redis.make({ client, ...quick, commandTimeout: "15 seconds" })
        assert.strictEqual(client.status, "wait")
        const connection = redis.connection("foo")
        yield* connection.send(add("foo", 1), once)
        const messages: Array<string> = []
        yield* redis.listen(["c"], { onMessage: (_, message) => void messages.push(message), onGap: () => {} })
        yield* connection.send(["publish", "c", "hello"], once)
        yield* until(Effect.sync(() => messages.length === 1))
        // On the connection that has written: the server waits for the writes of whoever asks.
        assert.strictEqual(yield* connection.send(["wait", 1, 10_000], again), 1)
        yield* cluster.node(2).kill
        assert.strictEqual(yield* connection.send(["xlen", "foo"], again), 1)
      }),
    40_000
  )
})
