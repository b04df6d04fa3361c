import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { createHash } from "node:crypto"
import { Cluster, Redis } from "ioredis"
import { existsSync } from "node:fs"
import { connect } from "node:net"
import { inject } from "vitest"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisSentinel from "../fixtures/RedisSentinel.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const client = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Redis({ port, retryStrategy: () => null, protocol: 2 }).on("error", () => {})),
    (redis) => Effect.sync(() => redis.disconnect())
  )

const shared = { port: inject("redisPort") }

describe("RedisServer", () => {
  it.effect("keeps its data over SIGKILL and restart with an append-only file", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
      yield* server.command("set", "kept", "yes")
      const first = server.pid()
      yield* server.kill
      assert.isFalse(isAlive(first))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(server.command("get", "kept"))))
      yield* server.restart
      assert.strictEqual(yield* server.command("get", "kept"), "yes")
      yield* server.restart
      assert.strictEqual(yield* server.command("get", "kept"), "yes")
      assert.notStrictEqual(server.pid(), first)
    }))

  it.effect("leaves no process and no directory after its scope", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(RedisServer.make(), scope)
      yield* server.stop
      assert.isTrue(isAlive(server.pid()) && existsSync(server.dir))
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(isAlive(server.pid()) || existsSync(server.dir))
    }))

  it.effect("takes a password and users", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({
        requirepass: "s3cret",
        user: ["alice on >pw ~a:* &* +@all", "bob off"]
      })
      assert.strictEqual(yield* server.command("PING"), "PONG")
      assert.include(server.url, ":s3cret@")
      assert.deepStrictEqual(yield* server.command("acl", "users"), ["alice", "bob", "default"])
    }))

  it.effect("fails with the output of a server that cannot start", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(RedisServer.make({ "no-such-directive": "1" }))
      assert.include(error.message, "no-such-directive")
    }))

  it.effect("answers nothing while it is stopped", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* server.command("ping")
      yield* server.stop
      let answered = false
      const waiting = yield* server.command("ping").pipe(
        Effect.tap(() => Effect.sync(() => answered = true)),
        Effect.forkChild({ startImmediately: true })
      )
      // A round trip to another server takes longer than this one would have needed.
      const other = yield* client(shared.port)
      yield* Effect.promise(() => other.ping())
      assert.isFalse(answered)
      yield* server.cont
      assert.strictEqual(yield* Fiber.join(waiting), "PONG")
    }))
})

describe("RedisSentinel", () => {
  it.effect(
    "has three Sentinels that name one master, of which two have to agree, and know its replica",
    () =>
      Effect.gen(function*() {
        const { master, name, replicas: [replica], sentinels } = yield* RedisSentinel.make()
        assert(replica !== undefined)
        for (const sentinel of sentinels) {
          const address = yield* sentinel.command("sentinel", "get-master-addr-by-name", name)
          assert.deepStrictEqual(address, [master.host, String(master.port)])
          assert.match(String(yield* sentinel.command("sentinel", "ckquorum", name)), /^OK 3 usable Sentinels/)
          assert.include(JSON.stringify(yield* sentinel.command("sentinel", "master", name)), `"quorum","2"`)
        }
        assert.lengthOf(sentinels, 3)
        assert.include(String(yield* replica.command("role")), "slave")
      }).pipe(Effect.scoped),
    60_000
  )
})

describe("RedisCluster", () => {
  it.effect("the shared cluster has three masters and all slots", () =>
    Effect.gen(function*() {
      const redis = yield* client(inject("clusterPorts")[0]!)
      const info = yield* Effect.promise(() => redis.cluster("INFO"))
      assert.match(info, /cluster_state:ok[^]*cluster_slots_ok:16384[^]*cluster_size:3/)
    }))

  it.effect("has replicas when asked for, and they can take over from a master that was killed", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make({ masters: 3, replicas: 1 })
      const role = (index: number) =>
        Effect.map(cluster.node(index).command("role"), (reply) => Array.isArray(reply) ? reply[0] : reply)
      const roles = yield* Effect.forEach(cluster.nodes, (_, index) => role(index))
      assert.deepStrictEqual(roles, ["master", "master", "master", "slave", "slave", "slave"])
      yield* cluster.node(0).kill
      yield* cluster.node(3).command("cluster", "failover", "takeover")
      assert.strictEqual(yield* role(3), "master")
    }))

  it.effect("a client with the natMap reaches every node through its proxy", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make()
      const { natMap, proxies } = yield* TcpProxy.makeCluster(cluster)
      const redis = yield* Effect.acquireRelease(
        Effect.sync(() => new Cluster([{ port: proxies[0]!.port }], { natMap }).on("error", () => {})),
        (made) => Effect.sync(() => made.disconnect())
      )
      for (let i = 0; i < 20; i++) yield* Effect.promise(() => redis.set(`key:${i}`, i))
      assert.isTrue(proxies.every((proxy) => proxy.connections() > 0))
    }))
})

describe("TcpProxy", () => {
  it.effect("dropReplyOnce: the command took effect, its answer and the connection are lost", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      const dropped = yield* proxy.dropReplyOnce((request) => request.includes("lost"))
      assert.strictEqual(yield* Effect.promise(() => redis.set("other", "1")), "OK")
      const exit = yield* Effect.exit(Effect.tryPromise(() => redis.set("lost", "x".repeat(500_000))))
      assert.isTrue(Exit.isFailure(exit))
      yield* dropped
      assert.strictEqual(yield* server.command("strlen", "lost"), 500_000)
      assert.strictEqual(proxy.connections(), 0)

      const again = yield* client(proxy.port)
      assert.strictEqual(yield* Effect.promise(() => again.set("lost", "1")), "OK")
    }))

  it.effect("dropReplyOnce: what was pipelined before it took effect, what came after did not", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      const dropped = yield* proxy.dropReplyOnce((request) => request.includes("\r\nb\r\n"))
      const all = Promise.allSettled(["a", "b", "c"].map((key) => redis.incr(key)))
      yield* dropped
      assert.strictEqual((yield* Effect.promise(() => all))[1]!.status, "rejected")
      assert.deepStrictEqual(yield* server.command("mget", "a", "b", "c"), ["1", "1", null])
    }))

  it.effect("dropReplyOnce: a NOSCRIPT passes, and the answer of the script is lost", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      const lua = "return redis.call('INCR', KEYS[1])"
      const hash = createHash("sha1").update(lua).digest("hex")
      const dropped = yield* proxy.dropReplyOnce((request) => request.includes("counter"))
      const message = yield* Effect.promise(() =>
        redis.evalsha(hash, 1, "counter").catch((error: Error) => error.message)
      )
      assert.include(message, "NOSCRIPT")
      assert.strictEqual(proxy.connections(), 1)
      yield* server.command("script", "load", lua)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(() => redis.evalsha(hash, 1, "counter")))))
      yield* dropped
      assert.strictEqual(yield* server.command("get", "counter"), "1")
    }))

  it.effect("dropReplyOnce: waits for the answer of a command that blocks", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      const dropped = yield* proxy.dropReplyOnce()
      const lost = yield* Effect.tryPromise(() => redis.blpop("list", 0)).pipe(
        Effect.exit,
        Effect.forkChild({ startImmediately: true })
      )
      yield* server.command("rpush", "list", "taken")
      yield* dropped
      assert.isTrue(Exit.isFailure(yield* Fiber.join(lost)))
      assert.strictEqual(yield* server.command("llen", "list"), 0)
    }))

  it.effect("cut closes every connection, the next one works", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make(shared)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      assert.strictEqual(proxy.connections(), 1)
      const ended = new Promise((resolve) => redis.once("end", resolve))
      yield* proxy.cut
      yield* Effect.promise(() => ended)
      assert.strictEqual(proxy.connections(), 0)
      const next = yield* client(proxy.port)
      assert.strictEqual(yield* Effect.promise(() => next.ping()), "PONG")
    }))

  it.effect("pause holds old and new connections, resume lets everything through", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make(shared)
      const old = yield* client(proxy.port)
      yield* Effect.promise(() => old.ping())
      yield* proxy.pause
      let answers = 0
      const waiting = [old, yield* client(proxy.port)].map((redis) => redis.ping().then(() => answers++))
      const direct = yield* client(shared.port)
      yield* Effect.promise(() => direct.ping())
      assert.strictEqual(answers, 0)
      yield* proxy.resume
      yield* Effect.promise(() => Promise.all(waiting))
      assert.strictEqual(answers, 2)
    }))

  it.effect("refuse turns new connections away and keeps the old ones, until accept", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make(shared)
      const dial = Effect.callback<string>((resume) => {
        const socket = connect(proxy.port, "127.0.0.1")
        socket.once("connect", () => resume(Effect.succeed("connected")))
        socket.once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code ?? "")))
        socket.once("connect", () => socket.destroy())
      })
      const old = yield* client(proxy.port)
      yield* Effect.promise(() => old.ping())
      yield* proxy.refuse
      assert.strictEqual(yield* dial, "ECONNREFUSED")
      assert.strictEqual(yield* Effect.promise(() => old.ping()), "PONG")
      yield* proxy.accept
      assert.strictEqual(yield* dial, "connected")
    }))

  it.effect("delay makes answers late", () =>
    Effect.gen(function*() {
      const proxy = yield* TcpProxy.make(shared)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      yield* proxy.delay(200)
      const before = performance.now()
      yield* Effect.promise(() => redis.ping())
      assert.isAtLeast(performance.now() - before, 190)
    }))

  it.effect("cutRequestOnce: the server gets the beginning of a command and does nothing", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      const cut = yield* proxy.cutRequestOnce(20, (request) => request.includes("\r\nb\r\n"))
      const all = Promise.allSettled(["a", "b", "c"].map((key) => redis.incr(key)))
      yield* cut
      assert.strictEqual((yield* Effect.promise(() => all))[1]!.status, "rejected")
      assert.deepStrictEqual(yield* server.command("mget", "a", "b", "c"), ["1", null, null])
    }))

  it.effect("cutReplyOnce: the command took effect, the client gets the beginning of the answer", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      yield* server.command("set", "key", "0123456789")
      const answered = yield* Effect.callback<string>((resume) => {
        const socket = connect(proxy.port, "127.0.0.1")
        let received = ""
        socket.on("data", (chunk) => {
          received += chunk.toString()
          if (received === "+PONG\r\n") socket.write("*2\r\n$6\r\ngetdel\r\n$3\r\nkey\r\n")
        })
        socket.on("close", () => resume(Effect.succeed(received)))
        Effect.runSync(proxy.cutReplyOnce(8, (request) => request.includes("getdel")))
        socket.write("*1\r\n$4\r\nping\r\n")
      })
      assert.strictEqual(answered, "+PONG\r\n$10\r\n012")
      assert.strictEqual(yield* server.command("exists", "key"), 0)
    }))

  it.effect("throttle lets the given bytes a second pass, in order", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const redis = yield* client(proxy.port)
      yield* Effect.promise(() => redis.ping())
      yield* proxy.throttle(10_000)
      const before = performance.now()
      const texts = ["a", "b", "c"].map((letter) => letter.repeat(500))
      yield* Effect.promise(() => Promise.all(texts.map((text) => redis.rpush("list", text))))
      assert.isAtLeast(performance.now() - before, 140)
      yield* proxy.throttle(Infinity)
      assert.deepStrictEqual(yield* Effect.promise(() => redis.lrange("list", 0, -1)), texts)
    }))

  it.effect("drop closes the connection before a command, or after it took effect", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      for (const [when, key] of [["before", "a"], ["after", "b"]] as const) {
        const redis = yield* client(proxy.port)
        yield* Effect.promise(() => redis.ping())
        yield* proxy.drop(() => when)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.tryPromise(() => redis.incr(key)))))
        yield* proxy.drop(undefined)
      }
      assert.deepStrictEqual(yield* server.command("mget", "a", "b"), [null, "1"])
    }))
})
