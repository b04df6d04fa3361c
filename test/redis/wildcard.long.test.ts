/** A subscription over a thousand channels: all messages arrive, and at rest it costs at most two commands a second. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import * as RedisCluster from "../fixtures/RedisCluster.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix, leftover, listen, liveBackend, nothingLeft } from "../contract/kit.ts"

const All = Channel.pattern("many.*", { payload: Schema.Int })
const channels = (count: number) =>
  Array.from({ length: count }, (_, i) => Channel.make(`many.${i}`, { payload: Schema.Int }))

const url = `redis://127.0.0.1:${inject("redisPort")}`
const { soon } = liveBackend("Redis", (options) => Rotif.layer({ url, ...options }))

const publishTo = (list: ReturnType<typeof channels>, round: number) =>
  Effect.forEach(list, (channel, i) => Publisher.publish(channel, round * list.length + i), {
    concurrency: 50,
    discard: true
  })

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  soon(Effect.repeat(Effect.delay(check, 10), { until: (done) => done }))

/** Counts the commands of the servers, those inside of scripts too, but not those that count. */
const commandsOf = (servers: ReadonlyArray<RedisServer.RedisServer>) =>
  Effect.map(
    Effect.forEach(servers, (server) => server.command("info", "commandstats")),
    (texts) =>
      texts.flatMap((text) => [...String(text).matchAll(/^cmdstat_(?!info)(\S+):calls=(\d+)/gm)])
        .reduce((sum, [, , calls]) => sum + Number(calls), 0)
  )

/** Long enough for one turn of every duty: the janitor's is 20 seconds, a look for expired leases 20 or 30. */
const idleSeconds = 20

/** Fills `count` channels, handles all messages, and counts the commands of the servers at rest. */
const rest = (count: number, options: Rotif.RedisOptions, servers: ReadonlyArray<RedisServer.RedisServer>) =>
  Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const list = channels(count)
    yield* publishTo(list, 0)
    const { seen, subscription } = yield* listen(All, { concurrency: 50 })
    const first = yield* soon(Queue.takeN(seen, count))
    yield* publishTo(list, 1)
    const second = yield* soon(Queue.takeN(seen, count))
    const numbers = [...first, ...second].map(({ payload }) => payload)
    assert.deepStrictEqual(new Set(numbers), new Set(Array.from({ length: 2 * count }, (_, i) => i)))

    const since = performance.now()
    yield* Publisher.publish(Channel.make("many.new", { payload: Schema.Int }), -1)
    assert.strictEqual((yield* soon(Queue.take(seen))).payload, -1)
    assert.isBelow(performance.now() - since, 1_000)
    yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
    assert.deepStrictEqual(yield* leftover(All), nothingLeft)

    // The janitor's work after the load, which would take it its time.
    yield* Effect.sleep(300)
    const shards = Array.from({ length: broker.shards }, (_, shard) => shard)
    yield* Effect.forEach(
      shards,
      (shard) => Effect.forEach(Array.from({ length: 1 + Math.ceil(count / 200) }), () => broker.trim(shard)),
      { concurrency: 8 }
    )
    const info = yield* broker.info(Channel.selector(All))
    assert.strictEqual(info.channels.reduce((sum, { length }) => sum + length, 0), 0)

    const before = yield* commandsOf(servers)
    yield* Effect.sleep(idleSeconds * 1_000)
    const cost = ((yield* commandsOf(servers)) - before) / idleSeconds / broker.shards
    // Those inside of scripts count too, of which some look at the types of keys before they write.
    assert.isAtMost(cost, 2)
    yield* soon(subscription.drain)
    return cost
  }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ prefix: "w", graceMillis: 200, ...options })))

describe("a subscription over many channels", () => {
  it.live(
    "1,000 channels, standalone and Cluster, and one: all is handled, idle it costs at most 2 commands a second a shard",
    () =>
      Effect.gen(function*() {
        const server = yield* RedisServer.make()
        const small = yield* RedisServer.make()
        const cluster = yield* RedisCluster.make()
        const nodes = cluster.nodes.map(({ host, port }) => ({ host, port }))
        const costs = yield* Effect.all([
          rest(1_000, { url: server.url }, [server]),
          rest(1_000, { cluster: nodes, shards: 8 }, cluster.nodes),
          rest(1, { url: small.url }, [small])
        ], { concurrency: 3 })
        if (process.env["MEASURE"]) console.log("idle commands a second per shard", costs)
      }),
    60_000
  )

  it.live("messages of many channels that a lost member held are found by another running member", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const list = channels(60)
      const lease = 600
      yield* publishTo(list, 0)
      const { seen, subscription } = yield* listen(All, { group: "g", lease, concurrency: 60 })
      yield* soon(Queue.takeN(seen, 60))
      yield* until(Effect.map(subscription.stats, ({ held }) => held === 0))
      yield* subscription.pause
      yield* publishTo(list, 1)
      const lost = yield* broker.join({
        shard: 0,
        group: "g",
        consumer: "lost",
        selector: Channel.selector(All),
        start: { _tag: "Earliest" },
        leaseMillis: lease
      })
      const taken: Array<Broker.Delivery> = []
      while (taken.length < 60) taken.push(...yield* soon(lost.read(60, 1_000)))
      yield* subscription.resume
      const messages = yield* soon(Queue.takeN(seen, 60))
      for (const { attempt, deliveryCount } of messages) assert.deepStrictEqual([attempt, deliveryCount], [1, 2])
      yield* soon(subscription.drain)
      assert.deepInclude(yield* subscription.stats, { crashed: 60, processed: 120 })
      assert.deepStrictEqual(yield* leftover(All), nothingLeft)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix: freshPrefix() }))))

  it.live("a busy channel among many quiet ones holds up neither itself nor them", () =>
    Effect.gen(function*() {
      const list = channels(100)
      yield* publishTo(list, 0)
      const { seen, subscription } = yield* listen(All, { concurrency: 10 })
      yield* soon(Queue.takeN(seen, 100))
      yield* subscription.pause
      yield* Publisher.publishAll(list[7]!, Array.from({ length: 3_000 }, (_, i) => 1_000 + i))
      yield* publishTo(list, 1)
      yield* subscription.resume
      const messages = yield* soon(Queue.takeN(seen, 3_100))
      const busy = messages.filter(({ payload }) => payload >= 1_000).map(({ payload }) => payload)
      assert.deepStrictEqual(busy, Array.from({ length: 3_000 }, (_, i) => 1_000 + i))
      const quiet = messages.findLastIndex(({ channel, payload }) => channel !== "many.7" && payload < 1_000)
      assert.isBelow(quiet, 1_500)
      yield* soon(subscription.drain)
      assert.deepStrictEqual(yield* leftover(All), nothingLeft)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ url, prefix: freshPrefix() }))))
})
