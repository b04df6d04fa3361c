/** `exactlyOnce`: a handler completes once for each key, whatever copies arrive and whichever consumers are lost. */
import { assert, describe } from "@effect/vitest"
import { Data, Deferred, Effect, Queue, Ref, Schema } from "effect"
import { Broker, Channel, DeadLetters, Publisher, Subscription } from "rotif"
import { type Backend, hanging, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("once.texts", { payload: Schema.String })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

/** The key of a message is its id, so that an id may be published again and is done once. */
export const byId = { key: ({ id }: { readonly id: string }) => id }

const retryMillis = 40
const leaseMillis = 300

/** Publishes a copy of a message: the same id, without the window that would refuse it. */
export const copy = (id: string, payload: string) =>
  Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const [appended] = yield* broker.append([{ id, channel: Text.name, payload: JSON.stringify(payload) }])
    assert.strictEqual(appended?._tag, "Stored")
  })

/** Joins a group of `Text` through the port. */
export const join = (consumer: string) =>
  Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const selector = Channel.selector(Text)
    return yield* broker.join({
      shard: broker.shardsOf(selector)[0]!,
      group: "port",
      consumer,
      selector,
      start: { _tag: "Earliest" },
      leaseMillis,
      doneMillis: 60_000
    })
  })

export const exactlyOnceSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  /** Waits until this many deliveries are acknowledged, handled or not. */
  const ended = (subscription: Subscription.Subscription, count: number) =>
    until(
      backend,
      Effect.map(subscription.stats, ({ duplicates, processed }) => duplicates + processed >= count)
    )

  describe("Subscription.make: exactlyOnce", () => {
    test(
      "handles copies of a message once, and acknowledges the others",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { exactlyOnce: byId, concurrency: 4 })
        for (const id of ["a", "b", "a", "a", "c", "b"]) yield* copy(id, id)
        yield* ended(subscription, 6)
        yield* copy("a", "a")
        yield* ended(subscription, 7)
        yield* soon(subscription.drain)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ id }) => id).sort(), ["a", "b", "c"])
        assert.deepInclude(yield* subscription.stats, { processed: 3, duplicates: 4, failed: 0, retried: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "counts for each group by itself",
      Effect.gen(function*() {
        const one = yield* listen(Text, { group: "one", exactlyOnce: byId })
        const two = yield* listen(Text, { group: "two", exactlyOnce: byId })
        const every = yield* listen(Text, { group: "every" })
        for (const id of ["a", "a"]) yield* copy(id, id)
        yield* soon(Queue.takeN(every.seen, 2))
        yield* ended(one.subscription, 2)
        yield* ended(two.subscription, 2)
        assert.strictEqual(yield* Queue.size(one.seen), 1)
        assert.strictEqual(yield* Queue.size(two.seen), 1)
      })
    )

    test(
      "a copy that comes while another is handled elsewhere waits, and costs no attempt",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const first = yield* listen(Text, { exactlyOnce: byId, prefetch: 0, handler: () => Deferred.await(gate) })
        yield* copy("a", "first")
        yield* soon(Queue.take(first.seen))
        const second = yield* listen(Text, { exactlyOnce: byId, prefetch: 0 })
        yield* copy("a", "second")
        yield* copy("b", "other")
        assert.strictEqual((yield* soon(Queue.take(second.seen))).id, "b")
        yield* Deferred.succeed(gate, undefined)
        yield* soon(first.subscription.drain)
        yield* ended(second.subscription, 2)
        yield* soon(second.subscription.drain)
        assert.deepInclude(yield* first.subscription.stats, { processed: 1 })
        assert.deepInclude(yield* second.subscription.stats, { processed: 1, duplicates: 1, failed: 0, retried: 0 })
        assert.strictEqual(yield* Queue.size(second.seen), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a copy takes over when the one that was handled is given up, as its first attempt",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const first = yield* listen(Text, {
          exactlyOnce: byId,
          prefetch: 0,
          maxRetries: 0,
          handler: () => Effect.andThen(Deferred.await(gate), Effect.fail(new Declined({ message: "" })))
        })
        yield* copy("a", "first")
        yield* soon(Queue.take(first.seen))
        const second = yield* listen(Text, { exactlyOnce: byId, prefetch: 0 })
        yield* copy("a", "second")
        yield* copy("b", "marker")
        assert.strictEqual((yield* soon(Queue.take(second.seen))).id, "b")
        // It finishes the messages it holds, and takes no more.
        yield* first.subscription.pause
        yield* Deferred.succeed(gate, undefined)
        const message = yield* soon(Queue.take(second.seen))
        assert.deepStrictEqual([message.payload, message.attempt, message.crashes], ["second", 1, 0])
        yield* ended(second.subscription, 2)
        assert.strictEqual((yield* letters).length, 1)
      })
    )

    test(
      "failures and timeouts leave no mark: the message is retried, and done when it succeeds",
      Effect.gen(function*() {
        const completed = yield* Ref.make<ReadonlyArray<string>>([])
        const { seen, subscription } = yield* listen(Text, {
          exactlyOnce: byId,
          retryDelay: retryMillis,
          timeout: 60,
          handler: (message) =>
            message.attempt === 1
              ? Effect.fail(new Declined({ message: "" }))
              : message.attempt === 2
              ? Effect.never
              : Ref.update(completed, (all) => [...all, `${message.id}:${message.attempt}`])
        })
        yield* copy("a", "x")
        yield* soon(Queue.takeN(seen, 3))
        yield* ended(subscription, 1)
        yield* copy("a", "x")
        yield* ended(subscription, 2)
        assert.deepStrictEqual(yield* Ref.get(completed), ["a:3"])
        assert.deepInclude(yield* subscription.stats, { processed: 1, duplicates: 1, failed: 2, retried: 2 })
      })
    )

    test(
      "a message requeued from the dead letters is handled, and done once",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          exactlyOnce: byId,
          maxRetries: 0,
          handler: (message) => message.payload === "bad" ? Effect.fail(new Declined({ message: "" })) : Effect.void
        })
        yield* copy("a", "bad")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        const [letter] = (yield* DeadLetters.list()).letters
        assert.isTrue(yield* DeadLetters.requeue(letter!.letterId))
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 2))
        const [again] = (yield* DeadLetters.list()).letters
        yield* copy("a", "good")
        yield* ended(subscription, 1)
        assert.isTrue(yield* DeadLetters.requeue(again!.letterId))
        yield* ended(subscription, 2)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ payload }) => payload), ["bad", "bad", "good"])
        assert.deepInclude(yield* subscription.stats, { processed: 1, duplicates: 1, dead: 2 })
        assert.deepStrictEqual(yield* letters, [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "release, nack and the end of a subscription leave no mark",
      Effect.gen(function*() {
        const first = yield* listen(Text, {
          exactlyOnce: true,
          drainTimeout: 0,
          prefetch: 10,
          handler: (message) =>
            message.payload === "release" && message.deliveryCount === 1
              ? message.release
              : message.payload === "nack" && message.deliveryCount === 1
              ? message.nack()
              : message.payload === "endless"
              ? Effect.never
              : Effect.void
        })
        for (const payload of ["release", "nack"]) yield* copy(payload, payload)
        yield* ended(first.subscription, 2)
        yield* copy("endless", "endless")
        yield* copy("waiting", "waiting")
        yield* soon(Effect.gen(function*() {
          while ((yield* Queue.take(first.seen)).payload !== "endless");
        }))
        yield* soon(first.subscription.drain)
        const second = yield* listen(Text, { exactlyOnce: true })
        const messages = yield* soon(Queue.takeN(second.seen, 2))
        yield* ended(second.subscription, 2)
        assert.deepStrictEqual(messages.map(({ payload }) => payload).sort(), ["endless", "waiting"])
        assert.deepInclude(yield* second.subscription.stats, { processed: 2, duplicates: 0 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "gives back what waits when it is paused, and handles it once when it goes on",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { exactlyOnce: true, concurrency: 2, prefetch: 20 })
        yield* subscription.pause
        for (let i = 0; i < 20; i++) yield* copy(`m${i}`, "x")
        yield* subscription.resume
        yield* soon(Queue.take(seen))
        yield* subscription.pause
        yield* subscription.resume
        yield* ended(subscription, 20)
        assert.deepInclude(yield* subscription.stats, { processed: 20, duplicates: 0, failed: 0 })
      })
    )

    test(
      "takes the key from the message, where one is given",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          exactlyOnce: { key: ({ payload }) => payload.toLowerCase(), ttl: "1 hour" }
        })
        yield* Publisher.publishAll(Text, ["x", "X", "y", "x"])
        yield* ended(subscription, 4)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ payload }) => payload), ["x", "y"])
      })
    )

    test(
      "a key that cannot be made is a failure of the attempt, and an undecodable payload one of the message",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { subscription } = yield* listen(Text, {
          maxRetries: 1,
          retryDelay: 10,
          exactlyOnce: {
            key: ({ payload }) => {
              if (payload === "throws") throw new Declined({ message: "no key" })
              return payload
            }
          }
        })
        yield* broker.append([{ id: "broken", channel: Text.name, payload: "{" }])
        yield* Publisher.publishAll(Text, ["throws", "", "good"])
        yield* ended(subscription, 1)
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 3))
        const all = yield* letters
        assert.deepStrictEqual(
          all.map(({ attempt, failure }) => `${failure.reason} ${failure.errorTag} ${attempt}`).toSorted(),
          ["decode InvalidPayload 1", "exhausted Declined 2", "exhausted InvalidOnceKey 2"]
        )
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a schema that never answers makes a dead letter of its message, and holds up no other ones for longer",
      Effect.gen(function*() {
        const Hanging = Channel.make("once.hanging", { payload: hanging })
        const { seen } = yield* listen(Hanging, { prefetch: 10, exactlyOnce: { key: ({ payload }) => payload } })
        yield* Publisher.publishAll(Hanging, ["hangs", "hangs", "hangs", "good"])
        assert.strictEqual((yield* backend.soon(Queue.take(seen))).payload, "good")
        yield* until(backend, Effect.map(letters, (all) => all.length === 3))
        const [letter] = yield* letters
        assert.strictEqual(letter!.failure.reason, "decode")
        assert.include(letter!.failure.message, "has not answered for 5 seconds")
      })
    )

    test(
      "refuses a time to remember that is shorter than the lease",
      Effect.gen(function*() {
        const refused = yield* Effect.flip(listen(Text, { lease: "1 minute", exactlyOnce: { ttl: "1 second" } }))
        assert(refused instanceof Subscription.InvalidSubscription)
        assert.strictEqual(refused.option, "exactlyOnce.ttl")
      })
    )
  })

  describe("Member.begin", () => {
    const take = (member: Broker.Member, count: number) =>
      soon(Effect.gen(function*() {
        const out: Array<Broker.Delivery> = []
        while (out.length < count) out.push(...(yield* member.read(count - out.length, 1000)))
        return out
      }))
    const keyed = (delivery: Broker.Delivery | undefined) => ({ delivery: delivery!, key: delivery!.id })

    test(
      "the first copy is mine, the second busy, and done when the first is acknowledged",
      Effect.gen(function*() {
        const a = yield* join("a")
        const b = yield* join("b")
        for (let i = 0; i < 3; i++) yield* copy("x", "x")
        const [one, two] = yield* take(a, 2)
        const [three] = yield* take(b, 1)
        assert.deepStrictEqual(yield* a.begin([keyed(one), keyed(two)]), ["mine", "busy"])
        assert.deepStrictEqual(yield* b.begin([keyed(three)]), ["busy"])
        // Called again, as after a lost answer.
        assert.deepStrictEqual(yield* a.begin([keyed(one)]), ["mine"])
        assert.deepStrictEqual(yield* a.ack([one!]), [])
        assert.deepStrictEqual(yield* b.begin([keyed(three)]), ["done"])
        assert.deepStrictEqual(yield* a.begin([keyed(two)]), ["done"])
        assert.deepStrictEqual([...(yield* a.ack([two!])), ...(yield* b.ack([three!]))], [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a key that was given back or buried is free",
      Effect.gen(function*() {
        const a = yield* join("a")
        for (let i = 0; i < 3; i++) yield* copy("x", "x")
        const [one, two, three] = yield* take(a, 3)
        assert.deepStrictEqual(yield* a.begin([keyed(one), keyed(two), keyed(three)]), ["mine", "busy", "busy"])
        assert.deepStrictEqual(yield* a.redeliver([{ delivery: one!, delayMillis: 60_000, attempt: 1 }]), [])
        assert.deepStrictEqual(yield* a.begin([keyed(two)]), ["mine"])
        assert.deepStrictEqual(yield* a.bury([{ delivery: two!, failure: { reason: "term", message: "" } }]), [])
        assert.deepStrictEqual(yield* a.begin([keyed(three)]), ["mine"])
        assert.deepStrictEqual(yield* a.ack([three!]), [])
      })
    )

    test(
      "a member that lost its lease cannot finish, and the one that took over can",
      Effect.gen(function*() {
        const a = yield* join("a")
        yield* copy("x", "x")
        const [first] = yield* take(a, 1)
        assert.deepStrictEqual(yield* a.begin([keyed(first)]), ["mine"])
        const b = yield* join("b")
        yield* backend.advance(leaseMillis + 50)
        const { deliveries } = yield* b.claim(10)
        assert.strictEqual(deliveries[0]?.deliveryCount, 2)
        assert.deepStrictEqual(yield* b.begin([keyed(deliveries[0])]), ["mine"])
        assert.deepStrictEqual(yield* a.ack([first!]), [first!])
        assert.deepStrictEqual(yield* b.ack([deliveries[0]!]), [])
        yield* copy("x", "x")
        const [again] = yield* take(b, 1)
        assert.deepStrictEqual(yield* b.begin([keyed(again)]), ["done"])
      })
    )

    test(
      "a lease that is renewed keeps its key, and one that is not loses it",
      Effect.gen(function*() {
        const a = yield* join("a")
        const b = yield* join("b")
        for (let i = 0; i < 2; i++) yield* copy("x", "x")
        const [one] = yield* take(a, 1)
        const [two] = yield* take(b, 1)
        assert.deepStrictEqual(yield* a.begin([keyed(one)]), ["mine"])
        for (let i = 0; i < 4; i++) {
          yield* backend.advance(leaseMillis / 3)
          assert.deepStrictEqual([...(yield* a.renew([one!])), ...(yield* b.renew([two!]))], [])
        }
        assert.deepStrictEqual(yield* b.begin([keyed(two)]), ["busy"])
        for (let i = 0; i < 4; i++) {
          yield* backend.advance(leaseMillis / 3)
          assert.deepStrictEqual(yield* b.renew([two!]), [])
        }
        assert.deepStrictEqual(yield* b.begin([keyed(two)]), ["mine"])
        // Its delivery is not claimed, but its key belongs to another consumer.
        assert.deepStrictEqual(yield* a.renew([one!]), [one!])
        assert.deepStrictEqual(yield* b.ack([two!]), [])
      })
    )
  })
}
