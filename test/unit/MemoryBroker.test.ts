/** Promises of the memory broker alone: all happens exactly at its time on the clock, and always in the same order. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Data, Effect, Exit, Fiber, Layer, Queue, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Broker, Channel, MemoryBroker, Publisher, Rotif, Subscription } from "rotif"
import { listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

const texts: Broker.Selector = { _tag: "Channels", names: ["texts"] }

const append = (payloads: ReadonlyArray<string>, options?: Partial<Broker.NewMessage>) =>
  Broker.Broker.use((broker) =>
    broker.append(payloads.map((payload) => ({ id: payload, channel: "texts", payload, ...options })))
  )

const join = (consumer: string, options?: Partial<Broker.Membership>) =>
  Broker.Broker.use((broker) =>
    broker.join({
      shard: 0,
      group: "g",
      consumer,
      selector: texts,
      start: { _tag: "Earliest" },
      leaseMillis: 30_000,
      ...options
    })
  )

const payloads = (deliveries: ReadonlyArray<Broker.Delivery>) => deliveries.map(({ payload }) => payload)

const lengths = Broker.Broker.use((broker) => broker.info({ _tag: "Pattern", pattern: "**" })).pipe(
  Effect.map(({ channels }) => channels.map(({ channel, length }) => [channel, length]))
)

const trim = Broker.Broker.use((broker) => broker.trim(0))

describe("Rotif.layerMemory: time", () => {
  it.effect("gives the message of a lost consumer to another one exactly when its lease expires", () =>
    Effect.gen(function*() {
      const lost = yield* join("lost")
      yield* append(["\"x\""])
      yield* lost.read(1, 0)
      const { seen } = yield* listen(Text, { group: "g", lease: "30 seconds" })
      yield* TestClock.adjust(29_999)
      assert.strictEqual(yield* Queue.size(seen), 0)
      yield* TestClock.adjust(1)
      const message = yield* Queue.take(seen)
      assert.deepInclude(message, { payload: "x", attempt: 1, deliveryCount: 2, crashes: 0 })
    }).pipe(Effect.provide(Rotif.layerMemory)))

  it.effect("retries exactly after the delay", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      yield* listen(Text, {
        retryDelay: "20 minutes",
        maxRetries: 2,
        handler: () =>
          Effect.andThen(
            Effect.map(Clock.currentTimeMillis, (now) => times.push(now)),
            Effect.fail(new Declined({ message: "" }))
          )
      })
      yield* Publisher.publish(Text, "x")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(times, [0, 1_200_000, 2_400_000])
    }).pipe(Effect.provide(Rotif.layerMemory)))

  it.effect("keeps the lease of a handler that runs for an hour", () =>
    Effect.gen(function*() {
      const { seen, subscription } = yield* listen(Text, { handler: () => Effect.sleep("1 hour") })
      const other = yield* listen(Text)
      yield* Publisher.publish(Text, "x")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([yield* Queue.size(seen), yield* Queue.size(other.seen)], [1, 0])
      assert.deepInclude(yield* subscription.stats, { processed: 1, lostLeases: 0 })
    }).pipe(Effect.provide(Rotif.layerMemory)))

  it.effect("remembers an id for exactly an hour, and a duplicate does not lengthen it", () =>
    Effect.gen(function*() {
      const publish = Effect.map(Publisher.publish(Text, "x", { id: "x" }), ({ _tag }) => _tag)
      const tags = [yield* publish]
      yield* TestClock.adjust(3_599_999)
      tags.push(yield* publish)
      yield* TestClock.adjust(1)
      tags.push(yield* publish)
      assert.deepStrictEqual(tags, ["Published", "Duplicate", "Published"])
    }).pipe(Effect.provide(Rotif.layerMemory)))

  it.effect("does the same in every run", () => {
    const run = Effect.gen(function*() {
      const log: Array<unknown> = []
      const handler = (name: string) => (message: { payload: string; attempt: number; crashes: number }) =>
        Effect.gen(function*() {
          log.push([name, yield* Clock.currentTimeMillis, message.payload, message.attempt, message.crashes])
          yield* Effect.sleep(Number(message.payload) % 7)
          if (message.attempt < 3 && Number(message.payload) % 5 === 0) return yield* new Declined({ message: "" })
        })
      for (const name of ["a", "b", "c"]) {
        yield* listen(Text, {
          group: name === "c" ? "other" : "g",
          concurrency: 3,
          retryDelay: 40,
          handler: handler(name)
        })
      }
      yield* (yield* join("lost", { leaseMillis: 30_000 })).read(3, 0)
      for (let i = 0; i < 60; i += 20) {
        log.push(
          yield* Publisher.publishAll(
            Text,
            Array.from({ length: 20 }, (_, j) => String(i + j)),
            (payload) => ({ id: payload })
          )
        )
        yield* TestClock.adjust(25)
      }
      yield* TestClock.adjust("1 minute")
      return log
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemoryWith()), Effect.provide(TestClock.layer()))
    return Effect.gen(function*() {
      const first = yield* run
      assert.isAbove(first.length, 120)
      assert.deepStrictEqual(yield* run, first)
    })
  })
})

describe("Rotif.layerMemory: its life", () => {
  it.effect("keeps nothing when it ends", () =>
    Effect.gen(function*() {
      const publish = Publisher.publish(Text, "x", { id: "x" }).pipe(Effect.andThen(lengths))
      for (let i = 0; i < 2; i++) {
        assert.deepStrictEqual(yield* Effect.provide(publish, Rotif.layerMemory), [["texts", 1]])
      }
    }))

  it.effect("shares nothing with another one, in one program", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([
        Layer.build(Rotif.layerMemoryWith()),
        Layer.build(Rotif.layerMemoryWith())
      ])
      yield* Effect.provide(Publisher.publish(Text, "x"), one)
      assert.deepStrictEqual(yield* Effect.provide(lengths, one), [["texts", 1]])
      assert.deepStrictEqual(yield* Effect.provide(lengths, other), [])
      const inner = yield* Effect.provide(Effect.provide(lengths, Rotif.layerMemoryWith()), Rotif.layerMemoryWith())
      assert.deepStrictEqual(inner, [])
    }))

  it.effect("interrupts handlers at once when it ends", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(Rotif.layerMemory, scope)
      const { seen } = yield* listen(Text, { handler: () => Effect.never }).pipe(
        Effect.provide(services),
        Scope.provide(scope)
      )
      yield* Effect.provide(Publisher.publish(Text, "x"), services)
      yield* Queue.take(seen)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust(1)
      assert.isDefined(closing.pollUnsafe())
    }))
})

describe("MemoryBroker: leases", () => {
  it.effect("says exactly when the next lease can expire", () =>
    Effect.gen(function*() {
      const first = yield* join("first")
      const second = yield* join("second")
      const next = Effect.map(second.claim(10), ({ nextInMillis }) => nextInMillis)
      yield* append(["a", "b"])
      const seen = [yield* next]
      yield* first.read(1, 0)
      yield* TestClock.adjust(10_000)
      const [b] = yield* first.read(1, 0)
      seen.push(yield* next)
      yield* TestClock.adjust(15_000)
      yield* first.renew([b!])
      seen.push(yield* next)
      yield* TestClock.adjust(4_999.5)
      seen.push(yield* next)
      assert.deepStrictEqual(seen, [undefined, 20_000, 5_000, 1])
      yield* TestClock.adjust(0.5)
      const { deliveries, nextInMillis } = yield* second.claim(10)
      assert.deepStrictEqual([payloads(deliveries), nextInMillis], [["a"], 25_000])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("counts messages that a limit removed under a lease as vanished", () =>
    Effect.gen(function*() {
      const first = yield* join("first")
      const second = yield* join("second")
      yield* append(["a", "b", "c"], { limits: { maxLength: 3 } })
      yield* first.read(2, 0)
      yield* append(["d"], { limits: { maxLength: 3 } })
      yield* TestClock.adjust(30_000)
      const { deliveries, vanished } = yield* second.claim(10)
      assert.deepStrictEqual([payloads(deliveries), vanished], [["b"], 1])
      assert.strictEqual((yield* second.claim(10)).vanished, 0)
      assert.deepStrictEqual(payloads(yield* second.read(10, 0)), ["c", "d"])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("refuses to settle a delivery of another member", () =>
    Effect.gen(function*() {
      const first = yield* join("first")
      const second = yield* join("second")
      yield* append(["a"])
      const deliveries = yield* first.read(1, 0)
      const copies = deliveries.map((delivery) => ({ ...delivery }))
      assert.deepStrictEqual(yield* second.ack(deliveries), deliveries)
      assert.deepStrictEqual(yield* first.ack(copies), copies)
      assert.deepStrictEqual(yield* first.ack(deliveries), [])
      assert.deepStrictEqual(yield* first.ack(deliveries), deliveries)
    }).pipe(Effect.provide(MemoryBroker.layer())))
})

describe("MemoryBroker: reads", () => {
  it.effect("end exactly after the time given, and leave nothing behind when interrupted", () =>
    Effect.gen(function*() {
      const member = yield* join("first")
      const reading = yield* Effect.forkChild(member.read(1, 5_000), { startImmediately: true })
      yield* TestClock.adjust(4_999)
      assert.isUndefined(reading.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(reading), [])
      const interrupted = yield* Effect.forkChild(member.read(1, 5_000), { startImmediately: true })
      yield* Fiber.interrupt(interrupted)
      yield* append(["a"])
      assert.deepStrictEqual(payloads(yield* member.read(1, 0)), ["a"])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("serve the members that wait in turn", () =>
    Effect.gen(function*() {
      const served: Array<string> = []
      for (const name of ["a", "b", "c"]) {
        const member = yield* join(name)
        yield* Effect.forkScoped(
          Effect.forever(Effect.tap(member.read(1, 60_000), (some) =>
            Effect.sync(() => {
              if (some.length > 0) served.push(name)
            }))),
          { startImmediately: true }
        )
      }
      for (let i = 0; i < 6; i++) {
        yield* append([String(i)])
        yield* TestClock.adjust(1)
      }
      assert.deepStrictEqual(served, ["a", "b", "c", "a", "b", "c"])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("take no more than asked, of every channel in its turn, and of new messages beside endless redeliveries", () =>
    Effect.gen(function*() {
      const member = yield* join("first", { selector: { _tag: "Pattern", pattern: "texts.*" } })
      for (const channel of ["texts.a", "texts.b"]) yield* append(["1", "2", "3"], { channel })
      const some = yield* member.read(2, 0)
      assert.deepStrictEqual(some.map(({ channel, payload }) => channel + payload), ["texts.a1", "texts.b1"])
      yield* member.redeliver(some.map((delivery) => ({ delivery, delayMillis: 0, attempt: 1 })))
      const again = (deliveries: ReadonlyArray<Broker.Delivery>) =>
        member.redeliver(deliveries.map((delivery) => ({ delivery, delayMillis: 0, attempt: 1 })))
      const more = yield* member.read(2, 0)
      assert.deepStrictEqual(payloads(more), ["1", "2"])
      yield* again(more)
      const seen: Array<string> = []
      for (let i = 0; i < 8; i++) {
        const one = yield* member.read(1, 0)
        assert.lengthOf(one, 1)
        seen.push(one[0]!.channel + one[0]!.payload)
        yield* again(one)
      }
      const unread = ["texts.a2", "texts.a3", "texts.b2", "texts.b3"]
        .filter((name) => !more.some(({ channel, payload }) => channel + payload === name))
      assert.lengthOf(unread, 3)
      assert.includeMembers(seen, unread)
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("begin in future where the group was told to", () =>
    Effect.gen(function*() {
      yield* append(["a"])
      const time = yield* join("first", { group: "time", start: { _tag: "Time", atMillis: 10 } })
      const position = yield* join("first", { group: "position", start: { _tag: "Position", position: "5-1" } })
      const latest = yield* join("first", { group: "latest", start: { _tag: "Latest" } })
      const read = Effect.forEach([time, position, latest], (member) => Effect.map(member.read(10, 0), payloads))
      yield* TestClock.adjust(5)
      const appended = yield* append(["b", "c", "d"])
      assert.deepStrictEqual(appended.map((one) => "position" in one ? one.position : ""), ["5-0", "5-1", "5-2"])
      assert.deepStrictEqual(yield* read, [[], ["d"], ["b", "c", "d"]])
      yield* TestClock.adjust(5)
      yield* append(["e"])
      assert.deepStrictEqual(yield* read, [["e"], ["e"], ["e"]])
    }).pipe(Effect.provide(MemoryBroker.layer())))
})

describe("MemoryBroker: waiting messages", () => {
  it.effect("become ready in the order of their times, not one of them early", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const member = yield* join("first")
      const count = 500
      yield* append(Array.from({ length: count }, (_, i) => String(i)))
      const delayOf = (payload: string) => 1 + (Number(payload) * 7_919) % 251
      const deliveries = yield* member.read(count, 0)
      yield* member.redeliver(
        deliveries.map((delivery) => ({ delivery, delayMillis: delayOf(delivery.payload), attempt: 2 }))
      )
      const times: Array<readonly [at: number, payload: string]> = []
      while (times.length < count) {
        const { moved, nextInMillis } = yield* broker.promote(0, 10)
        if (moved === 0) yield* TestClock.adjust(nextInMillis!)
        const now = yield* Clock.currentTimeMillis
        for (const { payload } of yield* member.read(count, 0)) times.push([now, payload])
      }
      const expected = deliveries.map(({ payload }) => [delayOf(payload), payload] as const)
        .sort(([a], [b]) => a - b)
      assert.deepStrictEqual(times, expected)
      assert.deepStrictEqual(yield* broker.promote(0, 10), { moved: 0, nextInMillis: undefined })
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("go with their group, and no others", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const members = yield* Effect.forEach(["g", "other"], (group) => join("first", { group }))
      yield* append(Array.from({ length: 50 }, (_, i) => String(i)))
      for (const member of members) {
        const deliveries = yield* member.read(50, 0)
        yield* member.redeliver(
          deliveries.map((delivery) => ({ delivery, delayMillis: 50 - Number(delivery.payload), attempt: 2 }))
        )
      }
      yield* broker.removeGroup("g", texts)
      assert.strictEqual((yield* broker.info(texts)).waiting, 50)
      yield* TestClock.adjust(50)
      assert.strictEqual((yield* broker.promote(0, 1_000)).moved, 50)
      assert.deepStrictEqual(
        payloads(yield* members[1]!.read(50, 0)),
        Array.from({ length: 50 }, (_, i) => String(49 - i))
      )
    }).pipe(Effect.provide(MemoryBroker.layer())))
})

describe("MemoryBroker.trim", () => {
  it.effect("keeps messages that a group has not acknowledged, and all messages without a group", () =>
    Effect.gen(function*() {
      yield* append(["a", "b", "c", "d"])
      yield* append(["x"], { channel: "nobody" })
      assert.strictEqual(yield* trim, 0)
      const fast = yield* join("first", { group: "fast" })
      // It is there before the other one has settled all: a later one would get none of that.
      const slow = yield* join("first", { group: "slow" })
      yield* fast.ack(yield* fast.read(10, 0))
      const [a, b] = yield* slow.read(3, 0)
      yield* slow.ack([b!])
      assert.strictEqual(yield* trim, 0)
      yield* slow.ack([a!])
      assert.strictEqual(yield* trim, 2)
      assert.deepStrictEqual(yield* lengths, [["nobody", 1], ["texts", 2]])
      yield* Broker.Broker.use((broker) => broker.removeGroup("slow", texts))
      assert.strictEqual(yield* trim, 2)
      assert.deepStrictEqual(yield* lengths, [["nobody", 1], ["texts", 0]])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("does not need a message in the log that waits for a retry", () =>
    Effect.gen(function*() {
      const member = yield* join("first")
      yield* append(["a"])
      const [a] = yield* member.read(1, 0)
      yield* member.redeliver([{ delivery: a!, delayMillis: 0, attempt: 2 }])
      assert.strictEqual(yield* trim, 1)
      assert.deepStrictEqual(payloads(yield* member.read(1, 0)), ["a"])
    }).pipe(Effect.provide(MemoryBroker.layer())))

  it.effect("keeps the limits of a channel whatever groups have read", () =>
    Effect.gen(function*() {
      const member = yield* join("first", { selector: { _tag: "Pattern", pattern: "*" } })
      yield* append(["a", "b"], { channel: "aged", limits: { maxAgeMillis: 1_000 } })
      yield* append(["a", "b"], { channel: "short", limits: { maxLength: 1 } })
      yield* append(["a", "b"], { channel: "from", limits: { minId: "5" } })
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* trim, 0)
      assert.deepStrictEqual(yield* lengths, [["aged", 2], ["from", 0], ["short", 1]])
      yield* append(["c"], { channel: "aged" })
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* trim, 2)
      const left = yield* member.read(10, 0)
      assert.deepStrictEqual(left.map(({ channel, payload }) => channel + payload), ["agedc", "shortb"])
    }).pipe(Effect.provide(MemoryBroker.layer())))
})

describe("MemoryBroker: volume", () => {
  it.effect(
    "carries 100,000 messages past two groups, one of them failing each message once",
    () =>
      Effect.gen(function*() {
        const count = 100_000
        yield* listen(Text, { group: "g", concurrency: 50, prefetch: 200 })
        const done = yield* Queue.unbounded<string>()
        const failing = yield* Subscription.make(Text, {
          group: "failing",
          concurrency: 50,
          prefetch: 200,
          retryDelay: 10,
          handler: ({ attempt, payload }) =>
            attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Queue.offer(done, payload)
        })
        for (let i = 0; i < count; i += 1_000) {
          yield* Publisher.publishAll(Text, Array.from({ length: 1_000 }, (_, j) => String(i + j)))
          yield* TestClock.adjust(1)
        }
        yield* TestClock.adjust("1 minute")
        assert.deepInclude(yield* failing.stats, { processed: count, retried: count, dead: 0, held: 0 })
        assert.strictEqual(new Set(yield* Queue.clear(done)).size, count)
        assert.deepStrictEqual(yield* lengths, [["texts", 0]])
      }).pipe(Effect.provide(Rotif.layerMemory)),
    60_000
  )
})
