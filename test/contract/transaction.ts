/** Transactions: the publishes and writes of a handler are applied with its acknowledgement or not at all. */
import { assert, describe } from "@effect/vitest"
import { Cause, Data, Deferred, Effect, Exit, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Subscription, Transaction } from "rotif"
import { byId, copy, join } from "./exactlyOnce.ts"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("once.texts", { payload: Schema.String })
const Copies = Channel.make("once.copies", { payload: Schema.String })
/** On a Cluster these are spread over all shards. */
const spread = Array.from({ length: 16 }, (_, i) => Channel.make(`once.spread.${i}`, { payload: Schema.String }))

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

const retryMillis = 40
const leaseMillis = 300

const readOwn = (name: string) => Effect.flatMap(Transaction.keyFor(Text, name), Transaction.read)

/** Writes a key of the program in a transaction of its own. */
const seed = (backend: Backend, write: (key: string) => Broker.Write, name: string) =>
  Effect.gen(function*() {
    const member = yield* join(`seed-${name}`)
    const key = yield* Transaction.keyFor(Text, name)
    yield* copy(`seed-${name}`, "seed")
    const [delivery] = yield* backend.soon(
      Effect.repeat(member.read(1, 1000), { until: (deliveries) => deliveries.length > 0 })
    )
    yield* member.begin([{ delivery: delivery!, key: delivery!.id }])
    assert.deepStrictEqual(yield* member.commit([{ delivery: delivery!, messages: [], writes: [write(key)] }]), [
      "done"
    ])
    return key
  })

export const transactionSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  const processed = (subscription: Subscription.Subscription, count: number) =>
    until(backend, Effect.map(subscription.stats, (stats) => stats.processed >= count))

  describe("Subscription.make: transactional", () => {
    test(
      "applies messages and writes together with the acknowledgement",
      Effect.gen(function*() {
        const copies = yield* listen(Copies)
        const { subscription } = yield* listen(Text, {
          transactional: true,
          handler: Effect.fnUntraced(function*({ payload }) {
            yield* Transaction.publish(Copies, `${payload}1`)
            yield* Transaction.publish(Copies, `${payload}2`, { headers: { from: payload } })
            yield* Transaction.incrby(yield* Transaction.key("count"), 2)
            yield* Transaction.set(yield* Transaction.key("last"), payload)
            yield* Transaction.hset(yield* Transaction.key("all"), { [payload]: "done", ["__proto__"]: "x" })
            yield* Transaction.set(yield* Transaction.key("gone"), payload)
            yield* Transaction.del(yield* Transaction.key("gone"))
          })
        })
        for (const payload of ["a", "b", "c"]) yield* Publisher.publish(Text, payload)
        const messages = yield* soon(Queue.takeN(copies.seen, 6))
        yield* processed(subscription, 3)
        yield* soon(copies.subscription.drain)
        assert.deepStrictEqual(messages.map(({ payload }) => payload).sort(), ["a1", "a2", "b1", "b2", "c1", "c2"])
        assert.strictEqual(messages.find(({ payload }) => payload === "b2")?.headers["from"], "b")
        assert.strictEqual(yield* readOwn("count"), "6")
        assert.strictEqual(yield* readOwn("last"), "c")
        assert.deepStrictEqual({ ...(yield* readOwn("all")) as object }, {
          a: "done",
          b: "done",
          c: "done",
          ["__proto__"]: "x"
        })
        assert.isUndefined(yield* readOwn("gone"))
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepStrictEqual(yield* leftover(Copies), nothingLeft)
      })
    )

    test(
      "applies nothing of an attempt that failed, timed out or was given back, and everything of the one that succeeds",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, {
          transactional: true,
          exactlyOnce: byId,
          retryDelay: retryMillis,
          timeout: 60,
          handler: Effect.fnUntraced(function*(message) {
            yield* Transaction.incrby(yield* Transaction.key("count"), 1)
            yield* Transaction.publish(Copies, String(message.attempt))
            if (message.attempt === 1) return yield* new Declined({ message: "" })
            if (message.attempt === 2) return yield* Effect.never
            if (message.deliveryCount === 3) yield* message.release
          })
        })
        const copies = yield* listen(Copies)
        yield* copy("a", "x")
        yield* processed(subscription, 1)
        yield* copy("a", "x")
        yield* until(backend, Effect.map(subscription.stats, (stats) => stats.processed + stats.duplicates === 2))
        yield* soon(Queue.take(copies.seen))
        yield* soon(copies.subscription.drain)
        assert.strictEqual(yield* readOwn("count"), "1")
        assert.deepInclude(yield* copies.subscription.stats, { processed: 1 })
        assert.deepInclude(yield* subscription.stats, { processed: 1, duplicates: 1, failed: 2 })
      })
    )

    test(
      "a message without messages and writes is acknowledged, and done once",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { transactional: true, exactlyOnce: byId })
        for (let i = 0; i < 3; i++) yield* copy("a", "x")
        yield* until(backend, Effect.map(subscription.stats, (stats) => stats.processed + stats.duplicates === 3))
        assert.strictEqual(yield* Queue.size(seen), 1)
      })
    )

    test(
      "publishes an id once within its window",
      Effect.gen(function*() {
        const copies = yield* listen(Copies)
        const { subscription } = yield* listen(Text, {
          transactional: true,
          handler: ({ payload }) => Transaction.publish(Copies, payload, { id: "same" })
        })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* processed(subscription, 2)
        // A message to another shard takes a moment to arrive.
        const first = yield* soon(Queue.take(copies.seen))
        yield* Publisher.publish(Copies, "marker")
        const second = yield* soon(Queue.take(copies.seen))
        assert.deepStrictEqual([first.payload, second.payload], ["a", "marker"])
        assert.strictEqual((yield* Publisher.publish(Copies, "c", { id: "same" }))._tag, "Duplicate")
      })
    )

    test(
      "brings messages to channels of any shard, each once and in order",
      Effect.gen(function*() {
        const every = Channel.pattern("once.spread.*", { payload: Schema.String })
        const broker = yield* Broker.Broker
        // As several processes would: each relays all that it finds.
        for (let i = 0; i < 3 * broker.shards; i++) {
          yield* Effect.forkScoped(Effect.forever(Effect.andThen(broker.relay(i % broker.shards, 7), Effect.sleep(1))))
        }
        const copies = yield* listen(every, { concurrency: 4 })
        const { subscription } = yield* listen(Text, {
          transactional: true,
          concurrency: 1,
          handler: Effect.fnUntraced(function*({ payload }) {
            for (const channel of spread) yield* Transaction.publish(channel, payload)
            yield* Transaction.incrby(yield* Transaction.key("count"), 1)
          })
        })
        const payloads = Array.from({ length: 20 }, (_, i) => String(i))
        yield* Publisher.publishAll(Text, payloads)
        yield* processed(subscription, 20)
        const messages = yield* soon(Queue.takeN(copies.seen, 20 * spread.length))
        yield* soon(copies.subscription.drain)
        for (const channel of spread) {
          const own = messages.filter((message) => message.channel === channel.name)
          assert.deepStrictEqual(own.map(({ payload }) => payload), payloads, channel.name)
        }
        assert.strictEqual(yield* Queue.size(copies.seen), 0)
        assert.strictEqual(yield* readOwn("count"), "20")
      })
    )

    test(
      "is refused as a whole when a key holds another type, and applied when that is mended",
      Effect.gen(function*() {
        const key = yield* seed(backend, (key) => ({ _tag: "Set", key, value: "text" }), "busy")
        const copies = yield* listen(Copies)
        const { seen, subscription } = yield* listen(Text, {
          group: "port",
          transactional: true,
          retryDelay: retryMillis,
          handler: Effect.fnUntraced(function*({ attempt, payload }) {
            yield* Transaction.publish(Copies, payload)
            yield* Transaction.incrby(yield* Transaction.key("count"), 1)
            if (attempt === 3) yield* Transaction.del(key)
            yield* Transaction.hset(key, { [payload]: "1" })
          })
        })
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.takeN(seen, 3))
        yield* processed(subscription, 1)
        yield* soon(Queue.take(copies.seen))
        yield* soon(copies.subscription.drain)
        assert.deepInclude(yield* subscription.stats, { processed: 1, failed: 2, dead: 0 })
        assert.deepInclude(yield* copies.subscription.stats, { processed: 1 })
        assert.strictEqual(yield* readOwn("count"), "1")
        assert.deepStrictEqual({ ...(yield* Transaction.read(key)) as object }, { x: "1" })
      })
    )

    test(
      "a message whose transaction is refused to the end becomes a dead letter that says which key and why",
      Effect.gen(function*() {
        const key = yield* seed(backend, (key) => ({ _tag: "HashSet", key, fields: { a: "1" } }), "hash")
        const { subscription } = yield* listen(Text, {
          group: "port",
          transactional: true,
          maxRetries: 1,
          retryDelay: 10,
          handler: ({ payload }) =>
            payload === "type"
              ? Transaction.incrby(key, 1)
              : Effect.andThen(Transaction.set(`${key}2`, "1e3"), Transaction.incrby(`${key}2`, 1))
        })
        yield* Publisher.publishAll(Text, ["type", "number"])
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 2))
        const found = (yield* letters).map(({ attempt, failure }) =>
          [attempt, failure.errorTag, failure.message] as const
        )
        for (const [attempt, tag, message] of found) {
          assert.deepStrictEqual([attempt, tag], [2, "CommitRefused"])
          assert.include(message, key)
        }
        assert.deepStrictEqual({ ...(yield* Transaction.read(key)) as object }, { a: "1" })
        assert.isUndefined(yield* Transaction.read(`${key}2`))
      })
    )

    test(
      "refuses keys it cannot reach or must not touch, and values that are none, before anything is sent",
      Effect.gen(function*() {
        const refused = yield* Deferred.make<ReadonlyArray<readonly [string, string]>>()
        yield* listen(Text, {
          transactional: true,
          handler: Effect.fnUntraced(function*() {
            const own = yield* Transaction.key("x")
            const reserved = own.replace(":own:x", ":meta")
            const results = yield* Effect.forEach([
              Transaction.set("elsewhere", "x"),
              Transaction.set("{elsewhere}:x", "x"),
              Transaction.del(reserved),
              Transaction.set("", "x"),
              Transaction.incrby(own, 1.5),
              Transaction.hset(own, {})
            ], Effect.flip)
            yield* Deferred.succeed(
              refused,
              results.map((error) => [error._tag, "reason" in error ? error.reason : ""])
            )
          })
        })
        yield* Publisher.publish(Text, "x")
        assert.deepStrictEqual(yield* soon(Deferred.await(refused)), [
          ["KeyRefused", "WrongSlot"],
          ["KeyRefused", "WrongSlot"],
          ["KeyRefused", "Reserved"],
          ["KeyRefused", "Invalid"],
          ["KeyRefused", "Invalid"],
          ["KeyRefused", "Invalid"]
        ])
      })
    )

    test(
      "takes no more than it may, and nothing after its end",
      Effect.gen(function*() {
        const full = yield* Deferred.make<unknown>()
        const kept = yield* Deferred.make<Transaction.Transaction["Service"]>()
        const { subscription } = yield* listen(Text, {
          transactional: true,
          handler: Effect.fnUntraced(function*() {
            const transaction = yield* Transaction.Transaction
            const key = yield* Transaction.key("count")
            for (let i = 0; i < 500; i++) yield* Transaction.incrby(key, 1)
            yield* Deferred.succeed(full, yield* Effect.flip(Transaction.publish(Copies, "one more")))
            yield* Deferred.succeed(kept, transaction)
          })
        })
        yield* Publisher.publish(Text, "x")
        assert.instanceOf(yield* soon(Deferred.await(full)), Transaction.TransactionTooLarge)
        yield* processed(subscription, 1)
        assert.strictEqual(yield* readOwn("count"), "500")
        const late = yield* Effect.exit(
          (yield* Deferred.await(kept)).addWrite({ _tag: "Delete", key: yield* Transaction.keyFor(Text, "count") })
        )
        assert.isTrue(Exit.isFailure(late) && Cause.hasDies(late.cause))
      })
    )

    test(
      "cannot be acknowledged by hand",
      Effect.gen(function*() {
        const refused = yield* Effect.flip(listen(Text, { transactional: true, ackMode: "manual" }))
        assert(refused instanceof Subscription.InvalidSubscription)
        const { subscription } = yield* listen(Text, {
          transactional: true,
          maxRetries: 0,
          handler: (message) => Effect.andThen(Transaction.publish(Copies, "x"), message.ack)
        })
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        assert.deepStrictEqual(yield* leftover(Copies), { ...nothingLeft })
      })
    )
  })

  describe("Member.commit", () => {
    const take = (member: Broker.Member) =>
      Effect.map(
        soon(Effect.repeat(member.read(1, 1000), { until: (deliveries) => deliveries.length > 0 })),
        ([delivery]) => delivery!
      )
    const changes = (key: string, payload: string) => ({
      messages: [{ id: payload, channel: Copies.name, payload: JSON.stringify(payload) }],
      writes: [{ _tag: "Increment", key, by: 1 } as const]
    })

    test(
      "is refused, with everything in it, when another member has taken over",
      Effect.gen(function*() {
        const copies = yield* listen(Copies)
        const key = yield* Transaction.keyFor(Text, "count")
        const a = yield* join("a")
        yield* copy("x", "x")
        const first = yield* take(a)
        yield* a.begin([{ delivery: first, key: first.id }])
        const b = yield* join("b")
        yield* backend.advance(leaseMillis + 50)
        const { deliveries: [second] } = yield* b.claim(1)
        yield* b.begin([{ delivery: second!, key: second!.id }])
        assert.deepStrictEqual(yield* a.commit([{ delivery: first, ...changes(key, "a") }]), ["lost"])
        assert.isUndefined(yield* Transaction.read(key))
        assert.deepStrictEqual(yield* b.commit([{ delivery: second!, ...changes(key, "b") }]), ["done"])
        assert.strictEqual(yield* Transaction.read(key), "1")
        assert.strictEqual((yield* soon(Queue.take(copies.seen))).payload, "b")
        assert.strictEqual(yield* Queue.size(copies.seen), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "acknowledges further deliveries in the same step, or nothing when one of them is lost",
      Effect.gen(function*() {
        const key = yield* Transaction.keyFor(Text, "count")
        const a = yield* join("a")
        for (const id of ["1", "2", "3"]) yield* copy(id, id)
        const [one, two, three] = yield* Effect.forEach([1, 2, 3], () => take(a))
        yield* a.begin([one!, two!, three!].map((delivery) => ({ delivery, key: delivery.id })))
        const b = yield* join("b")
        yield* backend.advance(leaseMillis * 0.7)
        assert.deepStrictEqual(yield* a.renew([one!, two!]), [])
        yield* backend.advance(leaseMillis * 0.5)
        const { deliveries: [stolen] } = yield* b.claim(3)
        assert.strictEqual(stolen?.id, three!.id)
        yield* b.begin([{ delivery: stolen!, key: stolen!.id }])
        for (const [delivery, others] of [[one!, [two!, three!]], [three!, [one!, two!]]] as const) {
          assert.deepStrictEqual(yield* a.commit([{ delivery, others, ...changes(key, "a") }]), ["lost"])
        }
        assert.isUndefined(yield* Transaction.read(key))
        // The others are still held.
        assert.deepStrictEqual(yield* a.commit([{ delivery: one!, others: [two!], ...changes(key, "b") }]), ["done"])
        assert.strictEqual(yield* Transaction.read(key), "1")
        assert.deepStrictEqual(yield* b.ack([stolen!]), [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "applies each commit of a batch by itself",
      Effect.gen(function*() {
        const key = yield* seed(backend, (key) => ({ _tag: "Set", key, value: "text" }), "text")
        const count = yield* Transaction.keyFor(Text, "count")
        const a = yield* join("a")
        for (const id of ["1", "2", "3"]) yield* copy(id, id)
        const deliveries = yield* Effect.forEach([1, 2, 3], () => take(a))
        yield* a.begin(deliveries.map((delivery) => ({ delivery, key: delivery.id })))
        const [one, two, three] = yield* a.commit(
          deliveries.map((delivery, i) => ({ delivery, ...changes(i === 1 ? key : count, delivery.id) }))
        )
        assert.deepStrictEqual([one, three], ["done", "done"])
        assert(two instanceof Broker.CommitRefused)
        assert.deepInclude(two, { reason: "NotAnInteger", key })
        assert.strictEqual(yield* Transaction.read(count), "2")
        // The refused one is still held.
        assert.deepStrictEqual(yield* a.commit([{ delivery: deliveries[1]!, ...changes(count, "2") }]), ["done"])
        assert.strictEqual(yield* Transaction.read(count), "3")
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })
}
