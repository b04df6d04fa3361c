/**
 * No step holds the server up: with messages of 1 MB each call of a script copies two of them at most, goes on at once where there is more, and
 * leaves no rest. Times depend on what else the machine does, so what is counted is how many calls it takes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue, Schema } from "effect"
import { Broker, Channel, DeadLetters, Publisher, Redis, Rotif, Subscription } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { until } from "../faults/Run.ts"

const keys = Keys.make("b", 0)
const names = Array.from({ length: 60 }, (_, n) => `c${n}`)
const countOf = (name: string) => name === "c0" ? 50_000 : 5_000
const Text = Channel.make("texts", { payload: Schema.String })
const big = "x".repeat(1_000_000)

const setup = Effect.fnUntraced(function*(options?: Partial<Rotif.RedisOptions>) {
  const server = yield* RedisServer.make()
  const services = yield* Layer.build(
    Layer.provideMerge(
      Redis.layer({ url: server.url }),
      Rotif.layer({ url: server.url, prefix: "b", ...options } as Rotif.RedisOptions)
    )
  )
  return { server, services }
})

/** How many calls of scripts an effect takes. */
const calls = <A, E, R>(server: RedisServer.RedisServer, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    yield* server.command("config", "resetstat")
    const result = yield* effect
    const stats = String(yield* server.command("info", "commandstats"))
    return [result, Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)] as const
  })

describe("Broker.trim", () => {
  it.live(
    "removes 345,000 acknowledged messages over 60 channels in one pass, 5,000 a call",
    () =>
      Effect.gen(function*() {
        const { server, services } = yield* setup({ graceMillis: 0, trimInterval: "1 day" })
        yield* Effect.gen(function*() {
          const broker = yield* Broker.Broker
          const redis = (yield* Redis.Redis).connection(keys.meta)
          const send = (...command: Redis.Command) => redis.send(command, { idempotent: true })
          for (const name of names) {
            yield* send("hset", keys.channels, name, "")
            yield* redis.pipeline(
              Array.from(
                { length: countOf(name) },
                (_, n): Redis.Command => ["xadd", keys.log(name), "*", "i", `m${n}`, "p", "x"]
              )
            )
            yield* send("xgroup", "CREATE", keys.log(name), "g", "$")
          }
          yield* send("hset", keys.groups, "g\n*", "")
          yield* send("hset", keys.meta, "v", 2)
          yield* Effect.sleep("5 millis")
          const [removed, steps] = yield* calls(server, broker.trim(0))
          assert.strictEqual(removed, 50_000 + 59 * 5_000)
          assert.isAtLeast(steps, 10 + 59)
        }).pipe(Effect.provide(services))
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("removes large messages a few at a time, and all of them", () =>
    Effect.gen(function*() {
      const { server, services } = yield* setup({ graceMillis: 0, trimInterval: "1 day" })
      yield* Effect.gen(function*() {
        const broker = yield* Broker.Broker
        yield* Publisher.publishAll(Text, Array.from({ length: 60 }, () => big))
        yield* server.command("xgroup", "create", keys.log("texts"), "g", "$")
        yield* server.command("hset", keys.groups, "g\ntexts", "")
        yield* server.command("hset", keys.meta, "v", 7)
        yield* Effect.sleep("5 millis")
        const [removed, steps] = yield* calls(server, broker.trim(0))
        assert.strictEqual(removed, 60)
        assert.isAtLeast(steps, 60 / 5)
      }).pipe(Effect.provide(services))
    }).pipe(Effect.scoped), 60_000)
})

describe("moving messages of 1 MiB", () => {
  it.live("promotes, buries, requeues, lists and deletes 30 of them, and leaves no rest", () =>
    Effect.gen(function*() {
      const { server, services } = yield* setup({ maxPayloadBytes: 2 * 2 ** 20 })
      yield* Effect.gen(function*() {
        const seen = yield* Queue.unbounded<number>()
        let isFailing = true
        yield* Subscription.make(Text, {
          group: "g",
          maxRetries: 0,
          concurrency: 40,
          handler: () => isFailing ? Effect.fail("no") : Queue.offer(seen, 1)
        })
        const areDead = until("all are dead", Effect.map(DeadLetters.count(), (count) => count === 30))
        const bodies = Array.from({ length: 30 }, () => big)
        // Promoted, and buried: two a call at most.
        const [, buried] = yield* calls(
          server,
          Effect.andThen(Publisher.publishAll(Text, bodies, { delay: 1 }), areDead)
        )
        assert.isAtLeast(buried, 30)
        const { letters } = yield* DeadLetters.list({}, { order: "oldest", limit: 30 })
        assert.strictEqual(letters.length, 30)
        isFailing = false
        const [{ moved }, requeued] = yield* calls(server, DeadLetters.requeueAll({ group: "g" }, { limit: 100 }))
        assert.strictEqual(moved, 30)
        assert.isAtLeast(requeued, 15)
        yield* Queue.takeN(seen, 30)
        isFailing = true
        yield* Effect.andThen(Publisher.publishAll(Text, bodies), areDead)
        const [, purged] = yield* calls(server, DeadLetters.purge({ group: "g" }))
        assert.isAtLeast(purged, 15)
        assert.strictEqual(yield* DeadLetters.count(), 0)
      }).pipe(Effect.provide(services))
    }).pipe(Effect.scoped), 60_000)
})

describe("Member.read", () => {
  const join = (consumer: string) =>
    Effect.flatMap(Broker.Broker, (broker) =>
      broker.join({
        shard: 0,
        group: "g",
        consumer,
        selector: Channel.selector(Text),
        start: { _tag: "Earliest" },
        leaseMillis: 300
      }))

  it.live("takes few large messages at a time, and many small ones", () =>
    Effect.gen(function*() {
      const { services } = yield* setup()
      yield* Effect.gen(function*() {
        const member = yield* join("me")
        yield* Publisher.publishAll(Text, Array.from({ length: 30 }, () => big))
        const large: Array<number> = []
        for (let left = 30; left > 0; left -= large.at(-1)!) large.push((yield* member.read(left, 1_000)).length)
        assert.isAtMost(Math.max(...large), 8)
        assert.isAtMost(Math.max(...large.slice(1)), 4)
        yield* Publisher.publishAll(Text, Array.from({ length: 2_000 }, () => "x"))
        const small: Array<number> = []
        for (let left = 2_000; left > 0; left -= small.at(-1)!) small.push((yield* member.read(left, 1_000)).length)
        assert.isAtMost(small.length, 16)
      }).pipe(Effect.scoped, Effect.provide(services))
    }), 60_000)

  it.live("of large messages whose consumer was lost, few are taken over at a time", () =>
    Effect.gen(function*() {
      const { server, services } = yield* setup()
      yield* Effect.gen(function*() {
        const lost = yield* join("lost")
        yield* Publisher.publishAll(Text, Array.from({ length: 20 }, () => big))
        for (let left = 20; left > 0;) left -= (yield* lost.read(left, 1_000)).length
        const other = yield* join("other")
        yield* server.command("config", "resetstat")
        let taken = 0
        while (taken < 20) taken += (yield* other.claim(100)).deliveries.length
        const stats = String(yield* server.command("info", "commandstats"))
        assert.isAtLeast(Number(/cmdstat_xclaim:calls=(\d+)/.exec(stats)?.[1]), 5)
      }).pipe(Effect.scoped, Effect.provide(services))
    }), 60_000)
})

describe("Member.bury", () => {
  it.live("reads no large message to find out whether there is room for another", () =>
    Effect.gen(function*() {
      const { server, services } = yield* setup()
      yield* Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const member = yield* broker.join({
          shard: 0,
          group: "g",
          consumer: "me",
          selector: Channel.selector(Text),
          start: { _tag: "Earliest" },
          leaseMillis: 60_000
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 4 }, () => big))
        const held: Array<Broker.Delivery> = []
        while (held.length < 4) held.push(...yield* member.read(4, 1_000))
        yield* server.command("config", "resetstat")
        const failure = { reason: "term", message: "no" } as const
        assert.deepStrictEqual(yield* member.bury(held.map((delivery) => ({ delivery, failure }))), [])
        const stats = String(yield* server.command("info", "commandstats"))
        // Of the stream without any entry.
        assert.isAtMost(Number(/cmdstat_xinfo\|stream:calls=(\d+)/.exec(stats)?.[1] ?? 0), 1)
      }).pipe(Effect.scoped, Effect.provide(services))
    }), 60_000)
})
