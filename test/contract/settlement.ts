/** Settlement: by the outcome of the handler, or by hand. */
import { assert, describe } from "@effect/vitest"
import { Clock, Data, Deferred, Effect, Fiber, Queue, Schema } from "effect"
import type { Message } from "rotif"
import { Channel, Publisher, Subscription } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
/** The same channel with another schema, as another program may define it. */
const Amount = Channel.make("texts", { payload: Schema.Int })

type TextMessage = Message.Message<typeof Text>

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

const retryMillis = 150

export const settlementSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Subscription.make: settlement by the handler", () => {
    test(
      "acknowledges when the handler succeeds",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text)
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.strictEqual((yield* subscription.stats).processed, 2)
      })
    )

    test(
      "tries again after the delay, and gives up after the last retry with a dead letter",
      Effect.gen(function*() {
        const tried: Array<readonly [attempt: number, deliveryCount: number, crashes: number]> = []
        const times: Array<number> = []
        const { seen, subscription } = yield* listen(Text, {
          group: "billing",
          maxRetries: 2,
          retryDelay: retryMillis,
          handler: (message) =>
            Effect.gen(function*() {
              if (message.payload !== "doomed") return
              times.push(yield* Clock.currentTimeMillis)
              tried.push([message.attempt, message.deliveryCount, message.crashes])
              return yield* new Declined({ message: "card declined" })
            })
        })
        const { id, position } = yield* Publisher.publish(Text, "doomed", { headers: { trace: "t-1" } })
        yield* soon(Queue.takeN(seen, 3))
        // The letter is written before a message that is published now can be handled.
        yield* soon(subscription.drain)
        const [letter, ...others] = yield* letters
        assert.deepStrictEqual(tried, [[1, 1, 0], [2, 2, 0], [3, 3, 0]])
        for (const i of [1, 2]) assert.isAtLeast(times[i]! - times[i - 1]!, retryMillis - 1)
        assert.deepStrictEqual(others, [])
        assert(letter !== undefined)
        assert.deepInclude(letter, {
          id,
          group: "billing",
          channel: "texts",
          payload: "\"doomed\"",
          attempt: 3,
          deliveryCount: 3,
          crashes: 0,
          publishedAtMillis: Number(position!.split("-")[0])
        })
        assert.deepStrictEqual({ ...letter.headers }, { trace: "t-1" })
        assert.deepInclude(letter.failure, { reason: "exhausted", errorTag: "Declined", message: "card declined" })
        assert.include(letter.failure.cause, "Declined")
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        const { dead, failed, processed, retried } = yield* subscription.stats
        assert.deepStrictEqual({ dead, failed, processed, retried }, { dead: 1, failed: 3, processed: 0, retried: 2 })
      })
    )

    test(
      "handles a message that succeeds on a retry, and others meanwhile",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: retryMillis,
          handler: ({ attempt, payload }) =>
            payload === "twice" && attempt === 1 ? Effect.fail(new Declined({ message: "" })) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["twice", "other"])
        const messages = yield* soon(Queue.takeN(seen, 3))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(messages.map(({ attempt, payload }) => [payload, attempt]), [
          ["twice", 1],
          ["other", 1],
          ["twice", 2]
        ])
        assert.strictEqual((yield* subscription.stats).processed, 2)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "treats it as a defect when a handler gives no Effect",
      Effect.gen(function*() {
        const subscription = yield* Subscription.make(Text, {
          maxRetries: 1,
          retryDelay: 10,
          handler: () => 42 as unknown as Effect.Effect<void>
        })
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        const [letter] = yield* letters
        assert.deepInclude(letter?.failure, { reason: "exhausted", errorTag: "TypeError", isDefect: true })
        assert.strictEqual(letter?.attempt, 2)
      })
    )

    test(
      "treats a defect as a failure",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          maxRetries: 1,
          retryDelay: 10,
          handler: () => Effect.sync(() => JSON.parse("{"))
        })
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        const [letter] = yield* letters
        assert.deepInclude(letter?.failure, { reason: "exhausted", errorTag: "SyntaxError" })
        assert.strictEqual(letter?.attempt, 2)
      })
    )

    test(
      "buries a message for any failure of its handler, also for one that cannot be printed",
      Effect.gen(function*() {
        const throws = () => {
          throw new Error("do not look")
        }
        const errors: ReadonlyArray<unknown> = [
          Object.create(null),
          Object.defineProperty({}, "_tag", { get: throws }),
          Object.defineProperty(new Error(), "message", { get: throws }),
          Object.assign(new Error(), { message: 7, stack: 7 }),
          { toString: throws },
          Symbol("why"),
          undefined,
          { _tag: "T".repeat(10_000), message: "x".repeat(100_000) }
        ]
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          maxRetries: 0,
          handler: ({ payload }) => Effect.fail(errors[Number(payload)])
        })
        yield* Publisher.publishAll(Text, errors.map((_, i) => String(i)))
        yield* soon(Queue.takeN(seen, errors.length))
        yield* soon(
          Effect.repeat(Effect.delay(letters, 5), { until: (all) => all.length === errors.length })
        )
        for (const { failure } of yield* letters) {
          assert.strictEqual(failure.reason, "exhausted")
          assert.isAtMost(failure.message.length, 1_024)
          assert.isAtMost(failure.errorTag?.length ?? 0, 256)
        }
        assert.deepInclude(yield* subscription.stats, { failed: errors.length, dead: errors.length, held: 0 })
        yield* soon(subscription.drain)
      })
    )

    test(
      "fails an attempt that takes too long, and interrupts it",
      Effect.gen(function*() {
        const interrupted = yield* Deferred.make<void>()
        const { subscription } = yield* listen(Text, {
          maxRetries: 0,
          timeout: 60,
          handler: () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
        })
        yield* Publisher.publish(Text, "x")
        yield* soon(Deferred.await(interrupted))
        yield* soon(subscription.drain)
        const [letter] = yield* letters
        assert.deepInclude(letter?.failure, { reason: "exhausted", errorTag: "TimeoutError" })
      })
    )

    test(
      "buries an invalid payload at once, and goes on",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Amount)
        yield* Publisher.publish(Text, "not a number")
        yield* Publisher.publish(Amount, 7)
        const message = yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        const [letter, ...others] = yield* letters
        assert.strictEqual(message.payload, 7)
        assert.deepStrictEqual(others, [])
        assert.deepInclude(letter, { payload: "\"not a number\"", attempt: 1, deliveryCount: 1 })
        assert.deepInclude(letter?.failure, { reason: "decode", errorTag: "InvalidPayload" })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        const { dead, failed, processed } = yield* subscription.stats
        assert.deepStrictEqual({ dead, failed, processed }, { dead: 1, failed: 0, processed: 1 })
      })
    )

    test(
      "keeps the failures of one group from every other",
      Effect.gen(function*() {
        const bad = yield* listen(Text, {
          group: "bad",
          maxRetries: 1,
          retryDelay: 10,
          handler: () => Effect.fail(new Declined({ message: "" }))
        })
        const good = yield* listen(Text, { group: "good" })
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.takeN(bad.seen, 2))
        yield* soon(Queue.take(good.seen))
        yield* soon(Effect.all([bad.subscription.drain, good.subscription.drain]))
        assert.strictEqual(yield* Queue.size(good.seen), 0)
        assert.deepStrictEqual((yield* letters).map(({ group }) => group), ["bad"])
      })
    )
  })

  describe("Message: settlement by hand", () => {
    /**
     * Settles the first delivery of a message with `settle`; gives that delivery, the one after it if there is one, and when
     * they came.
     */
    const settled = (settle: (message: TextMessage) => Effect.Effect<unknown, Message.LeaseLost>, deliveries: number) =>
      Effect.gen(function*() {
        const settledAt = yield* Deferred.make<number>()
        const { seen, subscription } = yield* listen(Text, {
          ackMode: "manual",
          handler: (message) =>
            message.deliveryCount > 1 || message.payload === "marker"
              ? message.ack
              : Effect.gen(function*() {
                yield* Deferred.succeed(settledAt, yield* Clock.currentTimeMillis)
                yield* settle(message)
              })
        })
        yield* Publisher.publish(Text, "x")
        const messages = yield* soon(Queue.takeN(seen, deliveries))
        const after = (yield* Clock.currentTimeMillis) - (yield* Deferred.await(settledAt))
        yield* Publisher.publish(Text, "marker")
        const marker = yield* soon(Queue.take(seen))
        assert.strictEqual(marker.payload, "marker", "handed out too often")
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        return { messages, after, stats: yield* subscription.stats, letters: yield* letters }
      })

    const counts = ({ attempt, crashes, deliveryCount }: TextMessage) => ({ attempt, crashes, deliveryCount })

    test(
      "ack: never again",
      Effect.gen(function*() {
        const { letters, stats } = yield* settled((message) => message.ack, 1)
        assert.deepStrictEqual(letters, [])
        assert.strictEqual(stats.processed, 2)
      })
    )

    test(
      "nack: again at once, as the next attempt",
      Effect.gen(function*() {
        const { messages, stats } = yield* settled((message) => message.nack(), 2)
        assert.deepStrictEqual(counts(messages[1]!), { attempt: 2, crashes: 0, deliveryCount: 2 })
        assert.strictEqual(stats.retried, 1)
      })
    )

    test(
      "nack with a delay: again, and not earlier",
      Effect.gen(function*() {
        const { after, messages } = yield* settled((message) => message.nack({ delay: retryMillis }), 2)
        assert.deepStrictEqual(counts(messages[1]!), { attempt: 2, crashes: 0, deliveryCount: 2 })
        assert.isAtLeast(after, retryMillis - 1)
      })
    )

    test(
      "release: again at once, as the same attempt",
      Effect.gen(function*() {
        const { messages, stats } = yield* settled((message) => message.release, 2)
        assert.deepStrictEqual(counts(messages[1]!), { attempt: 1, crashes: 0, deliveryCount: 2 })
        assert.strictEqual(stats.retried, 0)
      })
    )

    test(
      "works with the settlements taken out of the message",
      Effect.gen(function*() {
        const { letters, stats } = yield* settled(
          ({ deliveryCount, nack, term }) => deliveryCount === 1 ? nack() : term("never"),
          2
        )
        assert.deepStrictEqual(letters, [])
        assert.deepInclude(stats, { failed: 0, retried: 1, dead: 0 })
      })
    )

    test(
      "term: a dead letter with the reason",
      Effect.gen(function*() {
        const { letters, stats } = yield* settled((message) => message.term("customer is gone"), 1)
        assert.deepStrictEqual(letters.map(({ failure }) => [failure.reason, failure.message]), [
          ["term", "customer is gone"]
        ])
        assert.strictEqual(stats.dead, 1)
      })
    )

    test(
      "the first settlement counts, a second one is harmless",
      Effect.gen(function*() {
        const { letters, stats } = yield* settled(
          (message) => Effect.all([message.ack, message.nack(), message.term("no"), message.ack], { concurrency: 4 }),
          1
        )
        assert.deepStrictEqual(letters, [])
        assert.deepInclude(stats, { processed: 2, retried: 0, dead: 0 })
      })
    )

    test(
      "a settlement by the handler itself is not followed by one of its outcome",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          maxRetries: 0,
          handler: (message) =>
            message.attempt > 1
              ? Effect.void
              : Effect.andThen(message.nack(), Effect.fail(new Declined({ message: "" })))
        })
        yield* Publisher.publish(Text, "x")
        const messages = yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(messages.map(({ attempt }) => attempt), [1, 2])
        assert.deepStrictEqual(yield* letters, [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "manual: the handler's success settles nothing, the message stays with this consumer past its lease",
      Effect.gen(function*() {
        const first = yield* listen(Text, { ackMode: "manual", lease: 200 })
        yield* Publisher.publish(Text, "x")
        const message = yield* soon(Queue.take(first.seen))
        const second = yield* listen(Text, { lease: 200 })
        yield* backend.advance("600 millis")
        yield* message.renew
        assert.deepInclude(yield* first.subscription.stats, { held: 1, inFlight: 0, processed: 0 })
        assert.strictEqual(yield* Queue.size(second.seen), 0)
        assert.strictEqual((yield* leftover(Text)).pending, 1)
        yield* soon(message.ack)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepInclude(yield* first.subscription.stats, { held: 0, processed: 1, lostLeases: 0 })
      })
    )
  })

  describe("Subscription.make: concurrency", () => {
    test(
      "runs as many handlers as it may, and no more",
      Effect.gen(function*() {
        let running = 0
        let most = 0
        const full = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 5,
          handler: () =>
            Effect.gen(function*() {
              most = Math.max(most, ++running)
              if (running === 5) yield* Deferred.succeed(full, undefined)
              yield* Deferred.await(full)
              yield* Effect.yieldNow
              running--
            })
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 40 }, (_, i) => String(i)))
        yield* soon(Queue.takeN(seen, 40))
        yield* soon(subscription.drain)
        assert.strictEqual(most, 5)
      })
    )

    test(
      "keeps the order with one handler at a time",
      Effect.gen(function*() {
        const done: Array<string> = []
        const { seen, subscription } = yield* listen(Text, {
          prefetch: 10,
          handler: ({ payload }) =>
            Effect.andThen(
              Number(payload) % 7 === 0 ? Effect.yieldNow : Effect.void,
              Effect.sync(() => done.push(payload))
            )
        })
        const payloads = Array.from({ length: 100 }, (_, i) => String(i))
        for (let i = 0; i < payloads.length; i += 25) yield* Publisher.publishAll(Text, payloads.slice(i, i + 25))
        yield* soon(Queue.takeN(seen, payloads.length))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(done, payloads)
      })
    )

    test(
      "takes no more than concurrency and prefetch allow",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 2,
          prefetch: 3,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 20 }, (_, i) => String(i)))
        yield* soon(Queue.takeN(seen, 2))
        yield* backend.advance("50 millis")
        const { held, inFlight } = yield* subscription.stats
        assert.strictEqual(inFlight, 2)
        assert.isAtMost(held, 5)
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Queue.takeN(seen, 18))
      })
    )

    test(
      "lets a slow handler hold up nobody else",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 2,
          prefetch: 0,
          handler: ({ payload }) => payload === "slow" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["slow", ...Array.from({ length: 20 }, (_, i) => String(i))])
        yield* soon(Queue.takeN(seen, 21))
        const ending = yield* Effect.forkChild(soon(subscription.drain))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(ending)
        assert.strictEqual((yield* subscription.stats).processed, 21)
      })
    )
  })
}
