/** Every operation of the port fails once while messages flow, before it was done and after: all of them are handled in the end. */
import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Fiber, Layer, Queue, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import {
  Broker,
  Channel,
  Deduplication,
  Message,
  Publisher,
  Redis,
  RedisBroker,
  Retry,
  Rotif,
  Subscription,
  Transaction
} from "rotif"
import * as Testing from "rotif/testing"
import { inject } from "vitest"
import {
  type Backend,
  freshPrefix,
  leftover,
  letters,
  liveBackend,
  memoryBackend,
  nothingLeft,
  type Options,
  until
} from "../contract/kit.ts"

const Text = Channel.make("failing.texts", { payload: Schema.String })
const Others = Channel.make("failing.others", { payload: Schema.String })
const both = Channel.union([Text, Others])

class Bad extends Data.TaggedError("Bad")<{}> {}
class Slow extends Data.TaggedError("Slow")<{}> {}

type Services = Rotif.Services | Testing.Faults

const onRedis = (connection: Redis.Options, shards: number) => (options?: Options): Layer.Layer<Services, unknown> => {
  const all = { prefix: freshPrefix(), shards, ...options }
  return Layer.merge(
    Rotif.layerBroker(all).pipe(
      Layer.provideMerge(Testing.layerFaults()),
      Layer.provide(RedisBroker.layer(all))
    ),
    Deduplication.layerRedis(all)
  ).pipe(Layer.provide(Redis.layer(connection)))
}

const cluster = inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port }))
const url = `redis://127.0.0.1:${inject("redisPort")}`

const backends: ReadonlyArray<readonly [Backend, (options?: Options) => Layer.Layer<Services, unknown>]> = [
  [memoryBackend(Testing.layerMemoryWith), Testing.layerMemoryWith],
  [liveBackend("Redis", onRedis({ url }, 1)), onRedis({ url }, 1)],
  [liveBackend("Cluster", onRedis({ cluster }, 8)), onRedis({ cluster }, 8)]
]

const operations: ReadonlyArray<Testing.Operation> = [
  "append",
  "join",
  "read",
  "claim",
  "renew",
  "begin",
  "ack",
  "redeliver",
  "bury",
  "commit",
  "promote",
  "trim",
  "recurring.due"
]

const again = Schedule.spaced(20)

/** Publishes until it is stored, as the errors say. */
const insist = (
  text: string,
  options?: Publisher.PublishOptions
): Effect.Effect<Publisher.Receipt, unknown, Publisher.Publisher> =>
  Effect.catch(
    Publisher.publish(Text, text, options),
    (error) =>
      error._tag === "Unavailable" || error._tag === "PublishUncertain"
        ? insist(text, { ...options, id: error.id })
        : Effect.fail(error)
  )

for (const [backend, layer] of backends) {
  const { soon } = backend
  const test = (name: string, body: Effect.Effect<unknown, unknown, Services | import("effect").Scope.Scope>) =>
    it[backend.clock](name, () =>
      body.pipe(
        Effect.scoped,
        Effect.provide(
          layer({
            drainTimeout: "5 seconds",
            checkInterval: 50,
            trimInterval: 50,
            graceMillis: 3_600_000,
            retryDelay: 20
          })
        )
      ))

  describe(`${backend.name}: Testing.failing`, () => {
    for (const operation of operations) {
      for (const when of ["before", "after"] as const) {
        test(
          `${operation} fails ${when} it was done, and everything is handled`,
          Effect.gen(function*() {
            const broker = yield* Broker.Broker
            const failed = yield* Testing.failing({ operation, when })
            const handled = new Set<string>()
            const group = (name: string, options: Partial<Subscription.Options<typeof Text, Bad | Slow, never>>) =>
              Effect.retry(
                Subscription.make(Text, {
                  group: name,
                  concurrency: 4,
                  lease: 300,
                  retry: Retry.make({ Bad: Retry.term, Slow: Schedule.spaced(20) }),
                  handler: ({ attempt, payload }) =>
                    Effect.gen(function*() {
                      if (payload === "slow") yield* Effect.sleep(400)
                      if (payload === "bad") return yield* new Bad()
                      if (payload === "again" && attempt === 1) return yield* new Slow()
                      handled.add(`${name} ${payload}`)
                    }),
                  ...options
                }),
                again
              )
            yield* soon(group("plain", {}))
            yield* soon(Effect.retry(
              Subscription.make(Text, {
                group: "transactional",
                concurrency: 4,
                lease: 300,
                transactional: true,
                handler: Effect.fnUntraced(function*({ attempt, payload }) {
                  if (payload === "slow") yield* Effect.sleep(400)
                  if (payload === "again" && attempt === 1) return yield* Effect.fail("again")
                  yield* Transaction.incrby(yield* Transaction.key(payload), 1)
                  yield* Transaction.publish(Others, payload)
                })
              }),
              again
            ))
            const others = yield* Queue.unbounded<string>()
            yield* soon(Effect.retry(
              Subscription.make(Others, {
                group: "others",
                exactlyOnce: true,
                lease: 300,
                handler: ({ payload }) => Queue.offer(others, payload)
              }),
              again
            ))
            const texts = ["a", "again", "bad", "slow"]
            yield* soon(Effect.forEach(texts, (text) => insist(text)))
            yield* soon(insist("delayed", { delay: 60 }))
            yield* soon(insist("named", { id: "name" }))
            const all = [...texts, "delayed", "named"]

            yield* soon(failed)
            yield* until(
              backend,
              Effect.map(
                Effect.all([leftover(both), Effect.sync(() => handled.size)]),
                ([left, size]) => size === all.length - 1 && JSON.stringify(left) === JSON.stringify(nothingLeft)
              )
            )
            assert.deepStrictEqual(
              [...handled].sort(),
              all.filter((text) => text !== "bad").map((text) => `plain ${text}`).sort()
            )
            const effects = yield* Effect.forEach(all, (text) => broker.own.read(broker.own.keyFor(Text.name, text)))
            assert.deepStrictEqual(effects, all.map(() => "1"))
            assert.deepStrictEqual((yield* soon(Queue.takeN(others, all.length))).toSorted(), all.toSorted())
            assert.strictEqual(yield* Queue.size(others), 0)
            assert.deepStrictEqual((yield* letters).map(({ group, payload }) => `${group} ${payload}`), [
              "plain \"bad\""
            ])
          })
        )
      }
    }
  })

  describe(`${backend.name}: Testing.failing, for what a lost consumer had`, () => {
    for (const when of ["before", "after"] as const) {
      test(
        `beginTrial fails ${when} it was done, and everything is handled`,
        Effect.gen(function*() {
          yield* Publisher.publishAll(Text, ["a", "b", "c"])
          const broker = yield* Broker.Broker
          const selector = Channel.selector(Text)
          const member = yield* broker.join({
            shard: broker.shardsOf(selector)[0]!,
            group: "g",
            consumer: "lost",
            selector,
            start: { _tag: "Earliest" },
            leaseMillis: 300
          })
          let read = 0
          while (read < 3) read += (yield* soon(member.read(3, 1_000))).length
          const failed = yield* Testing.failing({ operation: "beginTrial", when })
          const handled = yield* Queue.unbounded<readonly [string, number]>()
          const subscription = yield* Subscription.make(Text, {
            group: "g",
            lease: 300,
            concurrency: 2,
            handler: ({ crashes, payload }) => Queue.offer(handled, [payload, crashes])
          })
          yield* soon(failed)
          const all = yield* soon(Queue.takeN(handled, 3))
          assert.sameDeepMembers([...all], [["a", 0], ["b", 0], ["c", 0]])
          yield* soon(subscription.drain)
          assert.deepInclude(yield* subscription.stats, { processed: 3, lostLeases: 0 })
        })
      )
    }
  })

  describe(`${backend.name}: a consumer that was cut off for longer than its lease`, () => {
    const lease = 500
    // Nor can it give back what waits in it.
    const cutOff = Effect.forEach(
      ["renew", "redeliver"] as const,
      (operation) => Testing.failing({ operation, when: "before", times: Infinity })
    )

    /** A consumer that handles the first of three until it is over. */
    const holdingThree = Effect.gen(function*() {
      yield* Publisher.publishAll(Text, ["a", "b", "c"])
      const isOver = yield* Deferred.make<void>()
      const begun = yield* Queue.unbounded<string>()
      const subscription = yield* Subscription.make(Text, {
        group: "g",
        lease,
        concurrency: 1,
        prefetch: 10,
        handler: ({ payload }) => Effect.andThen(Queue.offer(begun, payload), Deferred.await(isOver))
      })
      yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 3))
      return { begun, isOver, subscription }
    })

    test(
      "begins nothing that another one may have, before it has asked",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { begun, isOver, subscription } = yield* holdingThree
        assert.strictEqual(yield* soon(Queue.take(begun)), "a")
        yield* cutOff
        const other = yield* broker.join({
          shard: broker.shardsOf(Channel.selector(Text))[0]!,
          group: "g",
          consumer: "other",
          selector: Channel.selector(Text),
          start: { _tag: "Earliest" },
          leaseMillis: lease
        })
        const taken: Array<Broker.Delivery> = []
        yield* until(
          backend,
          Effect.map(other.claim(10), ({ deliveries }) => taken.push(...deliveries) === 3)
        )
        assert.deepStrictEqual(yield* other.ack(taken), [])
        yield* Deferred.succeed(isOver, undefined)
        // Its acknowledgement of the first is refused: by then the next would have begun.
        yield* until(backend, Effect.map(subscription.stats, ({ lostLeases }) => lostLeases > 0))
        assert.strictEqual(yield* Queue.size(begun), 0)
        yield* Testing.recover
        yield* until(backend, Effect.map(subscription.stats, ({ lostLeases }) => lostLeases === 3))
        assert.strictEqual(yield* Queue.size(begun), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "goes on with the messages it still owns, in order",
      Effect.gen(function*() {
        const { begun, isOver, subscription } = yield* holdingThree
        yield* cutOff
        yield* backend.advance(2 * lease)
        yield* Deferred.succeed(isOver, undefined)
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 1))
        assert.strictEqual(yield* Queue.size(begun), 1)
        yield* Publisher.publish(Text, "d")
        yield* Testing.recover
        assert.deepStrictEqual(yield* soon(Queue.takeN(begun, 4)), ["a", "b", "c", "d"])
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 4))
        assert.strictEqual((yield* subscription.stats).lostLeases, 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe(`${backend.name}: Testing.failing, told to the program`, () => {
    test(
      "append before: Unavailable, and the message is not stored; as often as it was asked for",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const length = Effect.map(broker.info(Channel.selector(Text)), ({ channels }) => channels[0]?.length ?? 0)
        const failed = yield* Testing.failing({ operation: "append", when: "before", times: 2 })
        assert.strictEqual((yield* Effect.flip(Publisher.publish(Text, "x")))._tag, "Unavailable")
        const error = yield* Effect.flip(Publisher.publishAll(Text, ["x", "y"]))
        assert.strictEqual(error._tag, "PublishIncomplete")
        yield* failed
        assert.strictEqual(yield* length, 0)
        assert.strictEqual((yield* Publisher.publish(Text, "x"))._tag, "Published")
        assert.strictEqual(yield* length, 1)
      })
    )

    test(
      "append after: PublishUncertain; published again with its id it is stored once",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        yield* Testing.failing({ operation: "append", when: "after" })
        const error = yield* Effect.flip(Publisher.publish(Text, "x"))
        assert.strictEqual(error._tag, "PublishUncertain")
        assert.strictEqual((yield* insist("x", { id: (error as Publisher.PublishUncertain).id }))._tag, "Published")
        const { channels } = yield* broker.info(Channel.selector(Text))
        assert.deepStrictEqual(channels.map(({ length }) => length), [1])
      })
    )

    test(
      "a reason of one's own: Overloaded",
      Effect.gen(function*() {
        yield* Testing.failing({ operation: "append", when: "before", reason: "Overloaded" })
        const error = yield* Effect.flip(Publisher.publish(Text, "x"))
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Overloaded", operation: "append" })
      })
    )

    test(
      "every part of the port: statistics, the keys of transactions, recurring messages, dead letters, inspection, durability",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const calls = {
          checkDurability: broker.checkDurability({ replicas: 1, onDisk: false, timeoutMillis: 10 }),
          ping: broker.ping,
          info: broker.info(Channel.selector(Text)),
          "inspection.listsKeys": broker.inspection.listsKeys,
          "stats.read": broker.stats.read(Channel.selector(Text)),
          "stats.lead": broker.stats.lead(1_000),
          "own.read": broker.own.read(broker.own.keyFor(Text.name, "x")),
          "recurring.list": broker.recurring.list(0),
          "letters.size": broker.letters.size(0),
          "scheduled.count": broker.scheduled.count(undefined)
        } satisfies { readonly [Name in Testing.Operation]?: Effect.Effect<unknown, Broker.BrokerError> }
        for (const [operation, call] of Object.entries(calls)) {
          yield* Testing.failing({ operation: operation as Testing.Operation, when: "before", reason: "Overloaded" })
          const error = yield* Effect.flip(call as Effect.Effect<unknown, Broker.BrokerError>)
          assert.deepInclude(error, { _tag: "BrokerError", reason: "Overloaded", operation })
        }
      })
    )

    test(
      "recover: what has not failed yet does not",
      Effect.gen(function*() {
        yield* Testing.failing({ operation: "append", when: "before", times: Infinity })
        yield* Effect.flip(Publisher.publish(Text, "x"))
        yield* Testing.recover
        assert.strictEqual((yield* Publisher.publish(Text, "x"))._tag, "Published")
      })
    )
  })
}

describe("Testing.failing: renew", () => {
  it.effect("a lease that is not renewed is lost: the handler is interrupted, and a late ack is LeaseLost", () =>
    Effect.gen(function*() {
      const started = yield* Queue.unbounded<Message.Message<typeof Text>>()
      const interrupted = yield* Deferred.make<void>()
      const subscribe = (handler: (message: Message.Message<typeof Text>) => Effect.Effect<unknown>) =>
        Subscription.make(Text, { group: "g", lease: "10 seconds", handler })
      yield* subscribe((message) =>
        Effect.andThen(
          Queue.offer(started, message),
          Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
        )
      )
      yield* Publisher.publish(Text, "x")
      const message = yield* Queue.take(started)
      yield* Testing.failing({ operation: "renew", when: "before", times: Infinity })
      const taken = yield* Deferred.make<void>()
      yield* subscribe(() => Deferred.succeed(taken, undefined))
      const waiting = yield* Effect.forkChild(Deferred.await(taken))
      yield* TestClock.adjust("11 seconds")
      yield* Fiber.join(waiting)
      yield* Testing.recover
      yield* TestClock.adjust("5 seconds")
      yield* Deferred.await(interrupted)
      assert.strictEqual((yield* Effect.flip(message.ack))._tag, "LeaseLost")
    }).pipe(Effect.scoped, Effect.provide(Testing.layerMemory)))

  it.live("a handler that blocks the process for longer than the lease: nothing is begun after it before a renewal", () =>
    Effect.gen(function*() {
      const lease = 1_000
      // Not one of the first, of which each is timed.
      const blocking = 1_003
      let begun = 0
      yield* Testing.failing({ operation: "renew", when: "before", times: Infinity })
      const subscription = yield* Subscription.make(Text, {
        group: "g",
        lease,
        concurrency: 1,
        prefetch: 2_000,
        handler: () =>
          Effect.sync(() => {
            if (begun++ !== blocking) return
            const until = performance.now() + lease
            while (performance.now() < until);
          })
      })
      yield* Publisher.publishAll(Text, Array.from({ length: 1_100 }, (_, i) => `${i}`))
      const processed = Effect.map(subscription.stats, (stats) => stats.processed)
      yield* Effect.repeat(Effect.delay(processed, 5), { until: (count) => count > blocking })
      assert.strictEqual(begun, blocking + 1)
      yield* Testing.recover
      yield* Effect.repeat(Effect.delay(processed, 5), { until: (count) => count === 1_100 })
      assert.strictEqual(begun, 1_100)
    }).pipe(Effect.scoped, Effect.provide(Testing.layerMemory)))
})
