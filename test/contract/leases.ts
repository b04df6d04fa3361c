/** Leases, crashes, fencing, and retention of logs. A lost process is a member that reads and never settles. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Queue, Ref, Schema, Scope } from "effect"
import type { Subscription } from "rotif"
import { Broker, Channel, Publisher } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const leaseMillis = 400

const shardOf = (broker: Broker.Broker["Service"], source: Channel.Source) =>
  broker.shardsOf(Channel.selector(source))[0]!

const join = Effect.fnUntraced(function*(consumer: string, source: Channel.Source = Text, group = "g") {
  const broker = yield* Broker.Broker
  return yield* broker.join({
    shard: shardOf(broker, source),
    group,
    consumer,
    selector: Channel.selector(source),
    start: { _tag: "Earliest" },
    leaseMillis
  })
})

/** Reads until it has `count` messages; one read may return fewer. */
const take = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) out.push(...yield* member.read(count - out.length, 1_000))
  return out
})

/** Claims expired messages until it has `count` of them. */
const claim = Effect.fnUntraced(function*(member: Broker.Member, count: number) {
  const out: Array<Broker.Delivery> = []
  while (out.length < count) {
    const { deliveries, nextInMillis } = yield* member.claim(count - out.length)
    out.push(...deliveries)
    if (out.length < count) yield* nextInMillis === undefined ? member.awaitLease : Effect.sleep(nextInMillis)
  }
  return out
})

const trimAll = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  const shards = Array.from({ length: broker.shards }, (_, shard) => shard)
  return (yield* Effect.forEach(shards, broker.trim)).reduce((sum, removed) => sum + removed, 0)
})

const lengthOf = Effect.fnUntraced(function*(source: Channel.Source) {
  const broker = yield* Broker.Broker
  const { channels } = yield* broker.info(Channel.selector(source))
  return channels.reduce((sum, { length }) => sum + length, 0)
})

/** A group handles all messages, and leaves. */
const handle = Effect.fnUntraced(function*<P, E, R>(
  backend: Backend,
  listening: Effect.Effect<
    { readonly seen: Queue.Dequeue<{ readonly payload: P }>; readonly subscription: Subscription.Subscription },
    E,
    R
  >,
  count: number
) {
  const { seen, subscription } = yield* listening
  const messages = yield* backend.soon(Queue.takeN(seen, count))
  yield* backend.soon(subscription.drain)
  return messages.map(({ payload }) => payload)
})

export const leasesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  const retention = { graceMillis: 20, trimInterval: "1 hour" } as const

  describe("leases", () => {
    test(
      "messages of a lost member come to another one when its lease has expired: at no cost of an attempt, and no crash for those not begun",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        const lost = yield* join("lost")
        const since = yield* Clock.currentTimeMillis
        assert.lengthOf(yield* soon(take(lost, 3)), 3)
        const { seen, subscription } = yield* listen(Text, { group: "g", lease: leaseMillis })
        const messages = yield* soon(Queue.takeN(seen, 3))
        assert.isAtLeast((yield* Clock.currentTimeMillis) - since, leaseMillis - 10)
        assert.sameMembers(messages.map(({ payload }) => payload), ["a", "b", "c"])
        for (const { attempt, crashes, deliveryCount } of messages) {
          assert.deepStrictEqual({ attempt, crashes, deliveryCount }, { attempt: 1, crashes: 0, deliveryCount: 2 })
        }
        yield* soon(subscription.drain)
        assert.deepInclude(yield* subscription.stats, { crashed: 3, processed: 3, lostLeases: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "late settlements of a lost member are refused and change nothing",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["ack", "requeue", "wait", "bury", "renew"])
        const lost = yield* join("lost")
        const old = yield* soon(take(lost, 5))
        const owner = yield* join("owner")
        const current = yield* soon(claim(owner, 5))
        const late = Effect.gen(function*() {
          const [ack, requeue, wait, bury, renew] = old
          return [
            ...yield* lost.ack([ack!]),
            ...yield* lost.redeliver([{ delivery: requeue!, delayMillis: 0, attempt: 2 }]),
            ...yield* lost.redeliver([{ delivery: wait!, delayMillis: 1, attempt: 2 }]),
            ...yield* lost.bury([{ delivery: bury!, failure: { reason: "term", message: "" } }]),
            ...yield* lost.renew([renew!])
          ]
        })
        for (const refused of [yield* late, yield* late]) {
          assert.deepStrictEqual(refused.map(({ id }) => id), old.map(({ id }) => id))
          assert.deepStrictEqual(yield* leftover(Text), { ...nothingLeft, pending: 5 })
          assert.deepStrictEqual(yield* letters, [])
        }
        assert.deepStrictEqual(yield* owner.renew(current), [])
        assert.deepStrictEqual(yield* owner.ack(current), [])
        // A settled message belongs to no member.
        assert.deepStrictEqual((yield* owner.ack(current)).length, 5)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a handler is interrupted when its lease is found lost, and the new owner handles its message",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const isCutOff = yield* Ref.make(true)
        const cutOff = Broker.Broker.of({
          ...broker,
          join: (membership) =>
            Effect.map(broker.join(membership), (member): Broker.Member => ({
              ...member,
              renew: (deliveries) =>
                Effect.flatMap(Ref.get(isCutOff), (cut) => cut ? Effect.succeed([]) : member.renew(deliveries))
            }))
        })
        const interrupted = yield* Deferred.make<void>()
        const first = yield* listen(Text, {
          group: "g",
          lease: leaseMillis,
          handler: () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
        }).pipe(Effect.provideService(Broker.Broker, cutOff))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(first.seen))
        const second = yield* listen(Text, { group: "g", lease: leaseMillis })
        assert.strictEqual((yield* soon(Queue.take(second.seen))).deliveryCount, 2)
        assert.isFalse(yield* Deferred.isDone(interrupted))
        yield* Ref.set(isCutOff, false)
        yield* soon(Deferred.await(interrupted))
        assert.deepInclude(yield* first.subscription.stats, { lostLeases: 1, processed: 0, failed: 0, held: 0 })
        yield* soon(second.subscription.drain)
        assert.strictEqual((yield* second.subscription.stats).processed, 1)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "renewal keeps a slow handler's message, however often the lease passes",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const lease = 1_000
        const first = yield* listen(Text, {
          group: "g",
          lease,
          concurrency: 3,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.takeN(first.seen, 3))
        const second = yield* listen(Text, { group: "g", lease })
        yield* backend.advance(2.5 * lease)
        yield* Deferred.succeed(gate, undefined)
        yield* soon(first.subscription.drain)
        assert.deepInclude(yield* first.subscription.stats, { processed: 3, lostLeases: 0 })
        assert.deepInclude(yield* second.subscription.stats, { processed: 0, crashed: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "renewal keeps what waits behind a slow handler, where nobody else could have it",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const lease = 1_000
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          lease,
          prefetch: 2,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(seen))
        yield* backend.advance(2.5 * lease)
        assert.strictEqual((yield* subscription.stats).held, 3)
        yield* Deferred.succeed(gate, undefined)
        const rest = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(rest.map(({ deliveryCount, payload }) => [payload, deliveryCount]), [["b", 1], ["c", 1]])
        yield* soon(subscription.drain)
        assert.deepInclude(yield* subscription.stats, { processed: 3, lostLeases: 0, crashed: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a claim takes no more than asked, and says when to look again",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(take(yield* join("lost"), 3))
        const other = yield* join("other")
        const early = yield* other.claim(10)
        assert.deepInclude(early, { deliveries: [], vanished: 0 })
        assert.isAtMost(early.nextInMillis!, leaseMillis)
        assert.isAtLeast(early.nextInMillis!, 1)
        yield* soon(Effect.sleep(early.nextInMillis! + 5))
        assert.lengthOf((yield* other.claim(2)).deliveries, 2)
        assert.lengthOf((yield* other.claim(2)).deliveries, 1)
        assert.lengthOf((yield* other.claim(2)).deliveries, 0)
      })
    )
  })

  describe("retention", () => {
    test(
      "keeps a message until every group has acknowledged it, also one that is not there",
      Effect.gen(function*() {
        // It has joined once and read nothing.
        yield* Effect.scoped(join("offline", Text, "offline"))
        yield* Publisher.publishAll(Text, ["a", "b", "c", "d"])
        assert.lengthOf(yield* handle(backend, listen(Text, { group: "fast" }), 4), 4)
        yield* backend.advance(50)
        assert.strictEqual(yield* trimAll, 0)

        const slow = yield* Scope.make()
        const member = yield* Scope.provide(join("slow", Text, "offline"), slow)
        const deliveries = yield* soon(take(member, 4))
        const text = (payload: string) => deliveries.filter((delivery) => delivery.payload === JSON.stringify(payload))
        yield* member.ack(text("a"))
        yield* member.ack(text("c"))
        assert.strictEqual(yield* trimAll, 1)
        assert.strictEqual(yield* lengthOf(Text), 3)
        assert.strictEqual(yield* trimAll, 0)
        yield* member.ack([...text("b"), ...text("d")])
        yield* Scope.close(slow, Exit.void)
        assert.strictEqual(yield* trimAll, 3)
        assert.strictEqual(yield* lengthOf(Text), 0)
      }),
      retention
    )

    test(
      "keeps the messages of a new channel for a group that matches it and has not reached it yet",
      Effect.gen(function*() {
        const Orders = Channel.pattern("orders.*", { payload: Schema.String })
        const New = Channel.make("orders.new", { payload: Schema.String })
        const broker = yield* Broker.Broker
        yield* Effect.scoped(Effect.forEach(broker.shardsOf(Channel.selector(Orders)), (shard) =>
          broker.join({
            shard,
            group: "all",
            consumer: "c",
            selector: Channel.selector(Orders),
            start: { _tag: "Latest" },
            leaseMillis
          }), { discard: true }))
        yield* Publisher.publishAll(New, ["a", "b"])
        assert.lengthOf(yield* handle(backend, listen(New, { group: "fast" }), 2), 2)
        yield* backend.advance(50)
        assert.strictEqual(yield* trimAll, 0)
        assert.deepStrictEqual(yield* handle(backend, listen(Orders, { group: "all" }), 2), ["a", "b"])
        assert.strictEqual(yield* trimAll, 2)
      }),
      retention
    )

    test(
      "keeps everything of a channel without a group",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* backend.advance(50)
        assert.strictEqual(yield* trimAll, 0)
        assert.deepStrictEqual(yield* handle(backend, listen(Text, { group: "late" }), 3), ["a", "b", "c"])
      }),
      retention
    )

    test(
      "does not count a removed group",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b"])
        const { subscription } = yield* listen(Text, { group: "gone", handler: () => Effect.never, drainTimeout: 0 })
        yield* handle(backend, listen(Text, { group: "stays" }), 2)
        yield* backend.advance(50)
        assert.strictEqual(yield* trimAll, 0)
        yield* soon(subscription.unsubscribe({ removeGroup: true }))
        assert.strictEqual(yield* trimAll, 2)
      }),
      retention
    )

    test(
      "maxLength: keeps about so many of the newest",
      Effect.gen(function*() {
        const Bounded = Channel.make("bounded", { payload: Schema.Int, limits: { maxLength: 100 } })
        yield* Publisher.publishAll(Bounded, Array.from({ length: 1_000 }, (_, i) => i))
        yield* trimAll
        const kept = yield* lengthOf(Bounded)
        assert.isAtLeast(kept, 100)
        assert.isAtMost(kept, 300)
        const numbers = yield* handle(backend, listen(Bounded, { group: "g" }), kept)
        assert.deepStrictEqual(numbers, Array.from({ length: kept }, (_, i) => 1_000 - kept + i))
      }),
      retention
    )

    test(
      "minId: removes messages below a position",
      Effect.gen(function*() {
        // Through the port, which adds no limits: a channel that is defined without any has none.
        const broker = yield* Broker.Broker
        const appended = yield* broker.append(
          ["a", "b", "c", "d"].map((text) => ({ id: text, channel: Text.name, payload: JSON.stringify(text) }))
        )
        const third = appended[2]
        assert(third?._tag === "Stored")
        const From = Channel.make("texts", { payload: Schema.String, limits: { minId: third.position } })
        yield* Publisher.publish(From, "e")
        // The publisher of a channel with limits registers them.
        yield* trimAll
        assert.deepStrictEqual(yield* handle(backend, listen(Text, { group: "g" }), 3), ["c", "d", "e"])
      }),
      retention
    )

    test(
      "maxAge: removes older messages, and counts those that a group had not handled as vanished",
      Effect.gen(function*() {
        const Aging = Channel.make("aging", { payload: Schema.String, limits: { maxAge: 1_500 } })
        yield* Publisher.publishAll(Aging, ["a", "b"])
        yield* soon(take(yield* join("lost", Aging), 2))
        // The young one also has this long before it is old.
        yield* backend.advance(1_600)
        yield* Publisher.publish(Aging, "young")
        assert.strictEqual(yield* trimAll, 2)
        assert.strictEqual(yield* lengthOf(Aging), 1)
        const { seen, subscription } = yield* listen(Aging, { group: "g", lease: leaseMillis })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "young")
        yield* soon(
          Effect.repeat(Effect.andThen(Effect.sleep(5), subscription.stats), { until: (stats) => stats.vanished === 2 })
        )
        assert.deepInclude(yield* subscription.stats, { crashed: 0, dead: 0 })
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Aging), nothingLeft)
      }),
      retention
    )
  })
}
