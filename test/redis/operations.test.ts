/** Permissions on the server: the user of docs/operations.md can do all that Rotif does, and a refusal is reported. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schedule, Schema } from "effect"
import { Redis as Client } from "ioredis"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Inspector,
  Publisher,
  Rotif,
  Scheduler,
  Stats,
  Subscription,
  Transaction
} from "rotif"
import { documented, page } from "../fixtures/documentedUser.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Latest = Channel.make("prices.latest", { payload: Schema.String, limits: { maxLength: 1 } })
const Bulk = Channel.make("bulk.texts", { payload: Schema.String })
const AnyText = Channel.pattern("*", { payload: Schema.String })
const selector = Channel.selector(AnyText)

/** Each operation of the main path that talks to Redis in a way of its own. */
const everything = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  // A lease that expires is claimed by somebody else.
  const member = yield* broker.join({
    shard: 0,
    group: "g",
    consumer: "lost",
    selector,
    start: { _tag: "Earliest" },
    leaseMillis: 200
  })
  yield* Publisher.publish(Text, "claimed", { id: "once" })
  yield* Publisher.publish(Text, "claimed", { id: "once" })
  assert.lengthOf(yield* member.read(1, 5_000), 1)
  const seen = new Map<string, number>()
  const subscription = yield* Subscription.make(AnyText, {
    group: "g",
    lease: "200 millis",
    // What waits behind the slow one would be given back, and be more to trim.
    prefetch: 0,
    handler: Effect.fnUntraced(function*(message) {
      seen.set(message.payload, message.attempt)
      yield* message.renew
      if (message.payload === "claimed") assert.strictEqual(message.deliveryCount, 2)
      if (message.payload === "released" && message.deliveryCount === 1) return yield* message.release
      if (message.payload === "retried" && message.attempt < 2) return yield* Effect.fail("again" as const)
      if (message.payload === "slow") yield* Effect.sleep("300 millis")
      if (message.payload === "dead") return yield* message.term("test")
    }),
    retry: Schedule.spaced("10 millis")
  })
  yield* Publisher.publishAll(Text, ["retried", "released", "slow", "dead", "last"])
  yield* Effect.gen(function*() {
    const info = yield* broker.info(selector)
    const groups = info.channels.flatMap((channel) => channel.groups)
    if (info.waiting > 0 || !groups.every(({ lag, pending, ready }) => lag === 0 && pending + ready === 0)) {
      return yield* Effect.fail("busy")
    }
  }).pipe(Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 400 }))))
  assert.deepStrictEqual([...seen.keys()].sort(), ["claimed", "dead", "last", "released", "retried", "slow"])
  yield* Publisher.publishAll(Text, ["of a key", "of this key"], () => ({ orderingKey: "key" }))
  yield* Effect.suspend(() => seen.has("of this key") ? Effect.void : Effect.fail("waiting")).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 400 })))
  )
  yield* broker.ping
  const [texts] = yield* Stats.channels(Text)
  assert.isUndefined(texts!.bytes)
  assert.isAbove(Stats.ofGroup([texts!], "g")!.totals.acked, 0)
  assert.lengthOf(yield* broker.letters.list(0, { order: "oldest", limit: 10 }), 1)
  yield* Publisher.publishAll(Latest, ["a", "b", "c"])
  assert.strictEqual(yield* broker.trim(0), 2)
  const heard = yield* Queue.unbounded<string>()
  for (const source of [Text, AnyText]) {
    yield* Broadcast.listen(source, { handler: ({ payload }) => Queue.offer(heard, payload) })
  }
  yield* Broadcast.publish(Text, "now")
  assert.deepStrictEqual(yield* Queue.takeN(heard, 2), ["now", "now"])
  yield* Publisher.publishAll(Text, ["1", "2", "3"], (id) => ({ id, delay: "1 hour", expiresIn: "1 hour" }))
  assert.isTrue(yield* Scheduler.reschedule(Text, "1", { delay: "2 hours" }))
  assert.isTrue(yield* Scheduler.cancel(Text, "2"))
  const first = yield* Scheduler.list({ limit: 1 })
  assert.lengthOf((yield* Scheduler.list({ cursor: first.cursor })).messages, 1)
  assert.strictEqual(yield* Scheduler.count(), 2)
  assert.isTrue(yield* Scheduler.deliverNow(Text, "1"))
  yield* Publisher.publish(Text, "soon", { delay: 10 })
  yield* Scheduler.recurring("often", { every: 20 }, Text, "tick")
  yield* Effect.suspend(() => seen.has("soon") && seen.has("tick") ? Effect.void : Effect.fail("waiting")).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 400 })))
  )
  assert.lengthOf(yield* Scheduler.listRecurring, 1)
  assert.isTrue(yield* Scheduler.removeRecurring("often"))
  // Generations of marks as short as a lease: they follow each other while this runs.
  const once = yield* Subscription.make(Text, {
    group: "transactional",
    lease: "100 millis",
    transactional: true,
    exactlyOnce: { ttl: "100 millis" },
    handler: Effect.fnUntraced(function*({ payload }) {
      const key = (name: string) => Transaction.key(name)
      yield* Transaction.incrby(yield* key("count"), 1)
      yield* Transaction.set(yield* key("last"), payload)
      yield* Transaction.hset(yield* key("all"), { [payload]: "1" })
      yield* Transaction.del(yield* key("gone"))
      yield* Transaction.publish(Latest, payload, { id: payload })
      yield* Transaction.publish(Latest, payload, { debounce: { key: "k", delay: "1 hour" } })
      yield* Effect.sleep("20 millis")
    })
  })
  yield* Publisher.publishAll(Text, Array.from({ length: 12 }, (_, i) => `once ${i}`))
  yield* Effect.map(once.stats, ({ processed }) => processed > 9).pipe(
    Effect.filterOrFail((isDone) => isDone, () => "waiting"),
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 400 })))
  )
  const count = yield* Transaction.keyFor(Text, "count")
  assert.isAbove(Number(yield* Transaction.read(count)), 9)
  assert.isObject(yield* Transaction.read(yield* Transaction.keyFor(Text, "all")))
  const inspected = yield* Inspector.verify({ confirmAfter: 50 })
  assert.deepInclude(inspected, { findings: [], listsKeys: false })
  assert.deepInclude(yield* Inspector.repair({ confirmAfter: 50 }), { repaired: [], left: [] })
  assert.strictEqual((yield* Deduplication.once("k", "1 hour", Effect.void))._tag, "Done")
  assert.strictEqual((yield* Deduplication.once("k", "1 hour", Effect.void))._tag, "Duplicate")
  assert.isTrue(yield* Deduplication.forget("k"))
  const [letter] = (yield* DeadLetters.list()).letters
  assert.isTrue(yield* DeadLetters.remove(letter!.letterId))
  // Many at once are acknowledged in another way than few.
  const bulk = yield* Subscription.make(Bulk, { group: "bulk", concurrency: 100, handler: () => Effect.void })
  yield* Publisher.publishAll(Bulk, Array.from({ length: 500 }, String))
  yield* Effect.map(bulk.stats, ({ processed }) => processed === 500).pipe(
    Effect.filterOrFail((isDone) => isDone, () => "waiting"),
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 400 })))
  )
  yield* broker.relay(0, 10)
  yield* broker.trim(0)
  yield* once.unsubscribe({ removeGroup: true })
  yield* subscription.pause
  yield* subscription.resume
  yield* subscription.unsubscribe({ removeGroup: true })
})

/** One command at least of every family that is permitted, on keys and channels of another namespace; and what nobody needs. */
const forbidden = (other: string): ReadonlyArray<ReadonlyArray<string>> => [
  ["xadd", `${other}:log:orders`, "*", "i", "2", "p", "2"],
  ["xrange", `${other}:log:orders`, "-", "+"],
  ["xrevrange", `${other}:dead`, "+", "-"],
  ["xlen", `${other}:log:orders`],
  ["xtrim", `${other}:log:orders`, "MAXLEN", "0"],
  ["xdel", `${other}:log:orders`, "1-1"],
  ["xgroup", "create", `${other}:log:orders`, "g", "0"],
  ["xgroup", "destroy", `${other}:log:orders`, "g"],
  ["xsetid", `${other}:log:orders`, "2-0"],
  ["xreadgroup", "GROUP", "g", "c", "STREAMS", `${other}:log:orders`, ">"],
  ["xreadgroup", "GROUP", "g", "c", "STREAMS", "{rotif:0}:log:orders", `${other}:log:orders`, ">", ">"],
  ["xack", `${other}:log:orders`, "g", "1-1"],
  ["xclaim", `${other}:log:orders`, "g", "c", "0", "1-1"],
  ["xpending", `${other}:log:orders`, "g"],
  ["xinfo", "stream", `${other}:log:orders`],
  ["zadd", `${other}:waiting`, "1", "a"],
  ["zrange", `${other}:waiting`, "0", "-1"],
  ["zrem", `${other}:waiting`, "a"],
  ["hset", `${other}:meta`, "shards", "2"],
  ["hgetall", `${other}:channels`],
  ["hdel", `${other}:groups`, "g"],
  ["hincrby", `${other}:counts`, "a", "1"],
  ["sadd", `${other}:retries:g`, "orders"],
  ["smembers", `${other}:retries:g`],
  ["get", `${other}:own:balance`],
  ["set", `${other}:own:balance`, "1"],
  ["incrby", `${other}:own:balance`, "1"],
  ["del", `${other}:log:orders`],
  ["unlink", `${other}:log:orders`],
  ["rename", `${other}:once:g`, "{rotif:0}:once:g"],
  ["rename", "{rotif:0}:once:g", `${other}:once:g`],
  ["pexpire", `${other}:log:orders`, "1"],
  ["type", `${other}:log:orders`],
  ["get", "{shop:once:k}"],
  ["set", "session", "1"],
  // A namespace whose prefix begins with this one's.
  ["get", "{rotif2:0}:janitor"],
  // The keys of a script are checked, and so is what it does beside them.
  ["eval", "return redis.call('XLEN', KEYS[1])", "1", `${other}:log:orders`],
  ["publish", `${other}:events`, "channel\norders"],
  ["publish", `${other}:broadcast:orders`, "orders\n\n1"],
  ["subscribe", `${other}:events`],
  ["subscribe", "__keyspace@0__:*"],
  ["psubscribe", `${other}:broadcast:*`],
  ["psubscribe", "*"],
  ...[
    "flushall",
    "flushdb",
    "keys *",
    "scan 0",
    "config set maxmemory 1",
    "config get requirepass",
    "acl list",
    "acl whoami",
    "acl setuser rotif +@all",
    "client list",
    "client no-evict on",
    "script flush",
    "script load return",
    "function flush",
    "module list",
    "shutdown",
    "save",
    "bgrewriteaof",
    "replicaof no one",
    "failover",
    "monitor",
    "slowlog get",
    "latency doctor",
    "swapdb 0 1",
    "migrate 127.0.0.1 1 k 0 1",
    "restore k 0 x",
    "dump {rotif:0}:meta",
    "sort {rotif:0}:meta",
    "cluster reset"
  ].map((command) => command.split(" "))
]

describe("Subscription.unsubscribe", () => {
  it.live(
    "fails when the server does not permit to remove the group, and can be repeated",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        const [name, ...args] = documented
        yield* server.command(name!, ...args.filter((arg) => arg !== "+del"))
        const url = `redis://rotif:secret@127.0.0.1:${server.port}`
        yield* Effect.gen(function*() {
          const broker = yield* Broker.Broker
          yield* Publisher.publish(Text, "kept")
          const subscription = yield* Subscription.make(Text, { group: "g", handler: () => Effect.void })
          const error = yield* Effect.flip(subscription.unsubscribe({ removeGroup: true }))
          assert.deepInclude(error, {
            _tag: "BrokerError",
            reason: "Refused",
            operation: "removeGroup",
            isRetryable: false
          })
          yield* server.command("acl", "setuser", "rotif", "+del")
          yield* broker.removeGroup("g", Channel.selector(Text))
          const { channels } = yield* broker.info(Channel.selector(Text))
          assert.deepStrictEqual(channels.flatMap(({ groups }) => groups), [])
        }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix: "rotif" })))
      }),
    60_000
  )
})

describe("Broadcast.listen", () => {
  it.live("listens on a pattern whose glob the ACL cannot name", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const [name, ...args] = documented
      yield* server.command(name!, ...args)
      const url = `redis://rotif:secret@127.0.0.1:${server.port}`
      yield* Effect.gen(function*() {
        const heard = yield* Queue.unbounded<string>()
        yield* Broadcast.listen(Channel.pattern("prices.*", { payload: Schema.String }), {
          handler: ({ payload }) => Queue.offer(heard, payload)
        })
        yield* Broadcast.publish(Text, "not asked for")
        yield* Broadcast.publish(Latest, "now")
        assert.strictEqual(yield* Queue.take(heard), "now")
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix: "rotif" })))
    }), 60_000)
})

describe("docs/operations.md: permissions", () => {
  it.live("with +wait it can publish durably, and is not refused", () =>
    Effect.gen(function*() {
      assert.include(page, "add `+wait`")
      const server = yield* RedisServer.make()
      const [name, ...args] = documented
      yield* server.command(name!, ...args, "+wait")
      const url = `redis://rotif:secret@127.0.0.1:${server.port}`
      yield* Effect.gen(function*() {
        const durability = { replicas: 1, timeout: "10 millis" } as const
        for (const options of [{}, { id: "x" }, { id: "x" }, { delay: "1 hour" }] as const) {
          // There is no replica.
          const error = yield* Effect.flip(Publisher.publish(Text, "x", { durability, ...options }))
          assert(error._tag === "DurabilityNotReached")
          assert.match(error.message, /with \{ id: "[^"]+" \}$/, "no other problem than time")
        }
      }).pipe(Effect.provide(Rotif.layer({ url, prefix: "rotif" })))
    }), 60_000)

  it.live("the user can do all that Rotif does", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const [name, ...args] = documented
      yield* server.command(name!, ...args)
      yield* server.command("acl", "log", "reset")
      const url = `redis://rotif:secret@127.0.0.1:${server.port}`
      yield* everything.pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix: "rotif" })))
      // The look at the settings, at the size of channels and at all keys is optional, and the page says so.
      const log = (yield* server.command("acl", "log")) as ReadonlyArray<ReadonlyArray<unknown>>
      assert.deepStrictEqual(log.map((entry) => entry[entry.indexOf("object") + 1]), [
        "scan",
        "memory|usage",
        "config|get"
      ])
      // Nothing is permitted that nothing needs. A connection to another database, one that takes the place of a lost one, and a repair that finds something need these.
      const elsewhere = ["select", "client|kill", "sismember"]
      const stats = String(yield* server.command("info", "commandstats"))
      const permitted = documented.filter((part) => part.startsWith("+")).map((part) => part.slice(1))
      assert.deepStrictEqual(permitted.filter((command) => !stats.includes(`cmdstat_${command}:`)), elsewhere)
    }), 60_000)

  it.live("the user touches no other namespace, and administers nothing", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const [name, ...args] = documented
      yield* server.command(name!, ...args)
      const other = "{shop:0}"
      yield* server.command("xadd", `${other}:log:orders`, "1-1", "i", "1", "p", "1")
      const before = yield* server.command("xinfo", "stream", `${other}:log:orders`, "full")
      const refused = (...command: ReadonlyArray<string>) =>
        Effect.acquireUseRelease(
          Effect.sync(() =>
            new Client({ port: server.port, username: "rotif", password: "secret", protocol: 2, lazyConnect: true })
          ),
          (client) =>
            Effect.promise(() =>
              client.connect().then(() => client.call(...command as [string])).then(String, (error) => error.message)
            ),
          (client) => Effect.sync(() => client.disconnect())
        ).pipe(Effect.map((answer) => [command.join(" "), answer.split(" ", 1)[0]] as const))
      const asked = yield* Effect.forEach(forbidden(other), (command) => refused(...command), { concurrency: 8 })
      assert.deepStrictEqual(asked.filter(([, answer]) => answer !== "NOPERM"), [])
      assert.deepStrictEqual(yield* server.command("keys", "*"), [`${other}:log:orders`])
      assert.deepStrictEqual(yield* server.command("xinfo", "stream", `${other}:log:orders`, "full"), before)
    }), 60_000)
})
