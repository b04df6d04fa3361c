/** Pub/Sub mode when connections, servers and slots fail, and when a listener is too slow. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Latch, Layer, Queue, Schema } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Broadcast, Channel, Rotif } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

const Count = Channel.make("counts", { payload: Schema.Int })
const AnyCount = Channel.pattern("*", { payload: Schema.Int })

const quick = { commandTimeout: 400, connectTimeout: 300, startTimeout: "2 seconds" } as const

/** Waits for what is seen to happen elsewhere: nothing in this process tells of it. */
const until = <E>(check: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.flatMap(
    check,
    (done) => done ? Effect.void : Effect.andThen(Effect.promise(() => new Promise(setImmediate)), until(check))
  )

type Seen = number | Broadcast.Gap

const listen = Effect.fnUntraced(function*(source: typeof Count | typeof AnyCount = Count) {
  const seen = yield* Queue.unbounded<Seen>()
  const listener = yield* Broadcast.listen(source, {
    onGap: (gap) => Queue.offer(seen, gap),
    handler: ({ payload }) => Queue.offer(seen, payload)
  })
  return { listener, seen }
})

const gap: Seen = { reason: "reconnected" }

/** Publishes a number as often as it takes until a listener that was cut off hears it, and gives what it saw before. */
const hearAgain = Effect.fnUntraced(function*(seen: Queue.Dequeue<Seen>, payload: number) {
  const before: Array<Seen> = []
  const hear = Effect.gen(function*() {
    for (let next = yield* Queue.take(seen); next !== payload; next = yield* Queue.take(seen)) before.push(next)
  })
  const publish = Effect.andThen(Effect.ignore(Broadcast.publish(Count, payload)), Effect.sleep("5 millis"))
  yield* Effect.timeout(Effect.raceFirst(hear, Effect.forever(publish)), "15 seconds")
  return before
})

const proxied = Effect.gen(function*() {
  const server = yield* RedisServer.make()
  return { server, proxy: yield* TcpProxy.make(server) }
})

describe("a listener whose connection fails", () => {
  it.live("reports the gap when the connection was cut, and goes on", () =>
    Effect.gen(function*() {
      const { proxy } = yield* proxied
      yield* Effect.gen(function*() {
        const one = yield* listen()
        const pattern = yield* listen(AnyCount)
        yield* Broadcast.publish(Count, 1)
        assert.strictEqual(yield* Queue.take(one.seen), 1)
        assert.strictEqual(yield* Queue.take(pattern.seen), 1)
        yield* proxy.cut
        assert.deepStrictEqual(yield* hearAgain(one.seen, 2), [gap])
        yield* proxy.cut
        const rest = yield* hearAgain(one.seen, 3)
        assert.deepStrictEqual(rest.filter((each) => each !== 2), [gap])
        const heard = yield* hearAgain(pattern.seen, 4)
        assert.deepStrictEqual(heard.filter((each) => typeof each === "object"), [gap, gap])
        assert.deepInclude(yield* one.listener.stats, { interruptions: 2, dropped: 0, invalid: 0, failed: 0 })
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: proxy.url })))
    }).pipe(Effect.scoped), 30_000)

  it.live("reports the gap when the server was restarted, and goes on", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* Effect.gen(function*() {
        const { seen } = yield* listen()
        yield* Broadcast.publish(Count, 1)
        yield* server.kill
        assert.strictEqual(yield* Queue.take(seen), 1)
        // The first may still find the old socket open, and cannot know what became of it.
        const error = yield* Effect.repeat(Effect.flip(Broadcast.publish(Count, 0)), {
          until: (error) => !("reason" in error) || error.reason !== "Uncertain"
        })
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Unavailable", isRetryable: true })
        const refused = yield* Effect.flip(Effect.scoped(listen(AnyCount)))
        assert.deepInclude(refused, { _tag: "BrokerError", reason: "Unavailable" })
        yield* server.restart
        assert.deepStrictEqual(yield* hearAgain(seen, 2), [gap])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url, ...quick })))
    }).pipe(Effect.scoped), 30_000)

  it.live("goes on trying while the server refuses it", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ user: ["alice on >old ~* &* +@all"] })
      const url = server.url.replace("//", "//alice:old@")
      yield* Effect.gen(function*() {
        const { seen } = yield* listen()
        yield* server.command("acl", "setuser", "alice", "resetpass", ">new")
        yield* server.command("client", "kill", "user", "alice")
        const refused = yield* Effect.flip(Effect.scoped(listen(AnyCount)))
        assert.deepInclude(refused, { _tag: "BrokerError", reason: "Refused", isRetryable: false })
        yield* server.command("acl", "setuser", "alice", ">old")
        assert.deepStrictEqual(yield* hearAgain(seen, 2), [gap])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, ...quick })))
    }).pipe(Effect.scoped), 30_000)

  it.live("notices a half-open connection, reports the gap, and goes on", () =>
    Effect.gen(function*() {
      const { proxy } = yield* proxied
      yield* Effect.gen(function*() {
        const { seen } = yield* listen()
        const before = proxy.connections()
        yield* proxy.pause
        // As many attempts take longer than it takes to give up the connection that hangs.
        yield* Effect.raceFirst(
          until(Effect.sync(() => proxy.connections() > before + 6)),
          Effect.forever(Effect.ignore(Broadcast.publish(Count, 1)))
        )
        yield* proxy.resume
        assert.deepStrictEqual(yield* hearAgain(seen, 2), [gap])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: proxy.url, ...quick })))
    }).pipe(Effect.scoped), 30_000)

  it.live("hears a message once whose publish was left without an answer", () =>
    Effect.gen(function*() {
      const { proxy, server } = yield* proxied
      yield* Effect.gen(function*() {
        const { seen } = yield* listen().pipe(Effect.provide(yield* Layer.build(Rotif.layer({ url: server.url }))))
        yield* proxy.dropReplyOnce((request) => request.includes("publish"))
        const error = yield* Effect.flip(Broadcast.publish(Count, 1))
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Uncertain" })
        yield* Broadcast.publish(Count, 2)
        assert.deepStrictEqual([yield* Queue.take(seen), yield* Queue.take(seen)], [1, 2])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: proxy.url })))
    }).pipe(Effect.scoped), 30_000)

  it.live("reports malformed messages of other programs, and goes on", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      yield* Effect.gen(function*() {
        const errors = yield* Queue.unbounded<Channel.InvalidPayload>()
        const heard = yield* Queue.unbounded<number>()
        const listener = yield* Broadcast.listen(AnyCount, {
          onInvalid: (error) => Queue.offer(errors, error),
          handler: ({ payload }) => Queue.offer(heard, payload)
        })
        const topic = "{rotif:0}:broadcast:counts"
        const garbage = ["", "5", "counts\n5", "counts\n{\n5", `counts\n{"h":{"a":1}}\n5`, "counts\n[]\n[", "\n\n5"]
        for (const text of garbage) yield* server.command("publish", topic, text)
        // Inside the glob that Redis matches, outside the pattern.
        yield* Broadcast.publish(Channel.make("counts.deep", { payload: Schema.Int }), 6)
        yield* Broadcast.publish(Count, 7)
        assert.strictEqual(yield* Queue.take(heard), 7)
        assert.deepInclude(yield* listener.stats, { invalid: garbage.length, handled: 1 })
        assert.isAbove(yield* Queue.size(errors), 0)
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url })))
    }).pipe(Effect.scoped), 30_000)
})

describe("a listener that does not keep up", () => {
  it.live("holds a bounded part of 100 MB, and counts the rest", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      const heap = Effect.sync(() => {
        collect()
        return process.memoryUsage().heapUsed
      })
      const total = 50_000
      const Large = Channel.make("large", { payload: Schema.String })
      yield* Effect.gen(function*() {
        const latch = yield* Latch.make()
        const gaps: Array<Broadcast.Gap> = []
        const listener = yield* Broadcast.listen(Large, {
          capacity: 1_000,
          onGap: (gap) => Effect.sync(() => gaps.push(gap)),
          handler: () => latch.await
        })
        const before = yield* heap
        for (let sent = 0; sent < total; sent += 1_000) {
          yield* Broadcast.publishAll(Large, Array.from({ length: 1_000 }, (_, i) => `${sent + i}`.padEnd(2_000, "x")))
        }
        const arrived = Effect.map(listener.stats, ({ buffered, dropped }) => buffered + dropped === total - 1)
        yield* until(arrived)
        const { buffered, dropped } = yield* listener.stats
        assert.deepStrictEqual([buffered, dropped], [1_000, total - 1_001])
        assert.isBelow((yield* heap) - before, 20_000_000)
        yield* latch.open
        yield* until(Effect.map(listener.stats, ({ handled }) => handled === 1_001))
        yield* until(Effect.sync(() => gaps.length > 0))
        assert.deepStrictEqual(gaps, [{ reason: "overflow", dropped }])
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url })))
    }).pipe(Effect.scoped), 60_000)
})

describe("a listener on a Cluster", () => {
  const prefix = "casts"
  const shards = 8
  const shard = Keys.shardOf(Count.name, shards)
  const keyslot = (cluster: RedisCluster.RedisCluster) =>
    Effect.map(cluster.node(0).command("cluster", "keyslot", Keys.make(prefix, shard).meta), Number)
  const ownerOf = (slot: number, masters: number) =>
    Array.from({ length: masters }, (_, i) => i).findLast((i) => Math.floor(16_384 * i / masters) <= slot)!

  /** Moves a slot with its keys from one of three masters to another. */
  const moveSlot = Effect.fnUntraced(function*(
    cluster: RedisCluster.RedisCluster,
    slot: number,
    from: number,
    to: number
  ) {
    const source = cluster.node(from)
    const target = cluster.node(to)
    const [sourceId, targetId] = [yield* source.command("cluster", "myid"), yield* target.command("cluster", "myid")]
    yield* target.command("cluster", "setslot", slot, "importing", String(sourceId))
    yield* source.command("cluster", "setslot", slot, "migrating", String(targetId))
    const keys = (yield* source.command("cluster", "getkeysinslot", slot, 100)) as ReadonlyArray<string>
    for (const key of keys) yield* source.command("migrate", target.host, target.port, key, 0, 1000)
    for (const node of [to, from, 3 - to - from]) {
      yield* cluster.node(node).command("cluster", "setslot", slot, "node", String(targetId))
    }
  })

  const layer = (cluster: RedisCluster.RedisCluster, commandTimeout: number) =>
    Rotif.layer({
      cluster: cluster.nodes.map(({ host, port }) => ({ host, port })),
      prefix,
      shards,
      ...quick,
      commandTimeout
    })

  /** The sharded channels a node has subscribers on. */
  const subscribed = (server: RedisServer.RedisServer) =>
    Effect.map(server.command("pubsub", "shardchannels"), (reply) => reply as ReadonlyArray<string>)

  // The heartbeat, which would notice it, is longer than the test waits.
  it.live("follows a slot that moves, and reports the gap", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make()
      const slot = yield* keyslot(cluster)
      const from = ownerOf(slot, 3)
      const to = (from + 1) % 3
      yield* Effect.gen(function*() {
        const one = yield* listen()
        const pattern = yield* listen(AnyCount)
        yield* Broadcast.publish(Count, 1)
        assert.strictEqual(yield* Queue.take(one.seen), 1)
        assert.strictEqual(yield* Queue.take(pattern.seen), 1)
        const topics = [Keys.make(prefix, shard).broadcast(Count.name), Keys.make(prefix, shard).broadcasts]
        assert.includeMembers([...yield* subscribed(cluster.node(from))], topics)

        yield* moveSlot(cluster, slot, from, to)
        assert.deepStrictEqual(yield* hearAgain(one.seen, 2), [gap])
        const heard = yield* hearAgain(pattern.seen, 3)
        assert.deepStrictEqual(heard.filter((each) => typeof each === "object"), [gap])
        assert.includeMembers([...yield* subscribed(cluster.node(to))], topics)
        assert.notIncludeMembers([...yield* subscribed(cluster.node(from))], topics)
      }).pipe(Effect.scoped, Effect.provide(layer(cluster, 20_000)))
    }).pipe(Effect.scoped), 60_000)

  it.live("begins on the right node although it knows an old map of the slots", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make()
      const slot = yield* keyslot(cluster)
      const from = ownerOf(slot, 3)
      const to = (from + 1) % 3
      yield* Effect.gen(function*() {
        yield* moveSlot(cluster, slot, from, to)
        const { listener, seen } = yield* listen()
        yield* Broadcast.publish(Count, 1)
        assert.strictEqual(yield* Queue.take(seen), 1)
        assert.deepInclude(yield* listener.stats, { interruptions: 0 })
      }).pipe(Effect.scoped, Effect.provide(layer(cluster, 2_000)))
    }).pipe(Effect.scoped), 60_000)

  it.live("goes to the replica that takes over, and reports the gap", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make({ replicas: 1 })
      const owner = ownerOf(yield* keyslot(cluster), 3)
      yield* Effect.gen(function*() {
        const { seen } = yield* listen()
        yield* Broadcast.publish(Count, 1)
        assert.strictEqual(yield* Queue.take(seen), 1)
        yield* cluster.node(owner).kill
        assert.deepStrictEqual(yield* hearAgain(seen, 2), [gap])
        assert.include(
          yield* subscribed(cluster.node(owner + 3)),
          Keys.make(prefix, shard).broadcast(Count.name)
        )
      }).pipe(Effect.scoped, Effect.provide(layer(cluster, 15_000)))
    }).pipe(Effect.scoped), 60_000)

  it.live("follows a master that hands over in peace", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make({ replicas: 1 })
      const owner = ownerOf(yield* keyslot(cluster), 3)
      const successor = cluster.node(owner + 3)
      yield* Effect.gen(function*() {
        const { seen } = yield* listen()
        yield* Broadcast.publish(Count, 1)
        assert.strictEqual(yield* Queue.take(seen), 1)
        yield* successor.command("cluster", "failover")
        const topic = Keys.make(prefix, shard).broadcast(Count.name)
        yield* until(Effect.map(subscribed(successor), (channels) => channels.includes(topic)))
        const heard = yield* hearAgain(seen, 2)
        assert.deepStrictEqual(heard, [gap])
      }).pipe(Effect.scoped, Effect.provide(layer(cluster, 2_000)))
    }).pipe(Effect.scoped), 60_000)

  it.live("has one connection to each node, and none without listeners", () =>
    Effect.gen(function*() {
      const cluster = yield* RedisCluster.make()
      yield* Effect.gen(function*() {
        const subscribers = Effect.map(
          Effect.forEach(cluster.nodes, (node) => node.command("client", "list", "type", "pubsub")),
          (lists) => lists.join("").split("\n").filter((line) => /ssub=[1-9]/.test(line)).length
        )
        assert.strictEqual(yield* subscribers, 0)
        yield* Effect.scoped(Effect.gen(function*() {
          for (let i = 0; i < 5; i++) yield* listen(AnyCount)
          // Two masters or three: eight shards need not reach every node.
          assert.include([2, 3], yield* subscribers)
        }))
        yield* until(Effect.map(subscribers, (count) => count === 0))
      }).pipe(Effect.scoped, Effect.provide(layer(cluster, 2_000)))
    }).pipe(Effect.scoped), 60_000)
})
