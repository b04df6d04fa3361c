/** A subscription from its start to its end: options, registry, pause, drain, scope close, statistics, the raw stream. */
import { assert, describe } from "@effect/vitest"
import type { Duration } from "effect"
import { Clock, Data, Deferred, Effect, Exit, Fiber, Queue, Schema, Scope, Stream } from "effect"
import { Broker, Channel, Publisher, Subscription } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Amount = Channel.make("texts", { payload: Schema.Int })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

/** Much longer than any of these tests: a message that returns earlier was released. */
const lease = "30 seconds"
const wellBeforeTheLease = 5_000

export const lifecycleSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Subscription.make: options", () => {
    test(
      "refuses options that cannot be used, and names them",
      Effect.gen(function*() {
        const options: ReadonlyArray<Partial<Subscription.Options<typeof Text, never, never>>> = [
          { group: "" },
          { group: "a\nb" },
          { consumer: "x".repeat(1025) },
          { concurrency: 0 },
          { concurrency: 1.5 },
          { prefetch: -1 },
          { maxRetries: Number.NaN },
          { maxCrashes: -1 },
          { lease: 99 },
          { lease: "soon" as Duration.Input },
          { blockInterval: 0 },
          { drainTimeout: Number.POSITIVE_INFINITY },
          { retryDelay: -1 },
          { timeout: 0 },
          { startFrom: { position: "yesterday" } },
          { startFrom: { time: "yesterday" } }
        ]
        const errors = yield* Effect.forEach(options, (option) => Effect.flip(listen(Text, option)))
        for (const [i, error] of errors.entries()) {
          assert.strictEqual(error._tag, "InvalidSubscription")
          assert.strictEqual("option" in error ? error.option : undefined, Object.keys(options[i]!)[0])
        }
        assert.deepStrictEqual(yield* Subscription.running, [])
      })
    )

    test(
      "lists the subscriptions that run",
      Effect.gen(function*() {
        const first = yield* listen(Text, { group: "a" })
        yield* Effect.scoped(Effect.gen(function*() {
          const { subscription } = yield* listen(Text, { group: "b" })
          assert.deepStrictEqual(yield* Subscription.running, [first.subscription, subscription])
        }))
        assert.deepStrictEqual((yield* Subscription.running).map(({ group }) => group), ["a"])
        yield* first.subscription.drain
        assert.deepStrictEqual(yield* Subscription.running, [])
      })
    )

    test(
      "runs as a layer, with the services of its handler",
      Effect.gen(function*() {
        const seen = yield* Queue.unbounded<string>()
        const live = Subscription.layer(Text, { group: "g", handler: ({ payload }) => Queue.offer(seen, payload) })
        yield* Publisher.publish(Text, "x")
        const payload = yield* soon(Queue.take(seen)).pipe(Effect.provide(live))
        assert.strictEqual(payload, "x")
        assert.deepStrictEqual(yield* Subscription.running, [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("Subscription: pause and resume", () => {
    test(
      "gives back what waits, finishes what runs, and takes nothing until it is resumed",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        yield* Publisher.publishAll(Text, ["0", "1", "2", "3", "4"])
        const first = yield* listen(Text, {
          lease,
          prefetch: 4,
          handler: ({ payload }) => payload === "0" ? Deferred.await(gate) : Effect.void
        })
        yield* soon(Queue.take(first.seen))
        assert.deepInclude(yield* first.subscription.stats, { held: 5, inFlight: 1 })
        yield* first.subscription.pause
        assert.isTrue(yield* first.subscription.isPaused)

        const since = yield* Clock.currentTimeMillis
        const second = yield* listen(Text, { lease })
        yield* Publisher.publish(Text, "5")
        const taken = yield* soon(Queue.takeN(second.seen, 5))
        assert.isBelow((yield* Clock.currentTimeMillis) - since, wellBeforeTheLease)
        assert.sameMembers(taken.map(({ payload }) => payload), ["1", "2", "3", "4", "5"])
        for (const { attempt, crashes } of taken) assert.deepStrictEqual([attempt, crashes], [1, 0])

        yield* soon(second.subscription.drain)
        yield* Publisher.publish(Text, "6")
        yield* Deferred.succeed(gate, undefined)
        yield* backend.advance("50 millis")
        assert.deepInclude(yield* first.subscription.stats, { held: 0, inFlight: 0, processed: 1 })
        yield* first.subscription.resume
        assert.isFalse(yield* first.subscription.isPaused)
        assert.strictEqual((yield* soon(Queue.take(first.seen))).payload, "6")
        yield* soon(first.subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("Subscription: drain and unsubscribe", () => {
    test(
      "drain: finishes what runs, takes nothing more, ends once",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, { prefetch: 3, handler: () => Deferred.await(gate) })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(seen))
        const draining = yield* Effect.forkChild(
          soon(Effect.all([subscription.drain, subscription.drain, subscription.ended], { concurrency: 3 })),
          { startImmediately: true }
        )
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(draining)
        yield* soon(subscription.drain)
        const { ready, unread, ...rest } = yield* leftover(Text)
        assert.strictEqual(ready + unread, 2)
        assert.deepStrictEqual(rest, { pending: 0, waiting: 0 })
        assert.strictEqual((yield* subscription.stats).processed, 1)
        assert.strictEqual(yield* Queue.size(seen), 0)
      })
    )

    test(
      "unsubscribe: the group keeps its place",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { group: "g" })
        yield* subscription.unsubscribe()
        yield* Publisher.publish(Text, "meanwhile")
        const { seen } = yield* listen(Text, { group: "g", startFrom: "latest" })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "meanwhile")
      })
    )

    test(
      "unsubscribe with removeGroup: the group and what it had not handled are forgotten",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          retryDelay: "1 minute",
          handler: () => Effect.fail(new Declined({ message: "" }))
        })
        const other = yield* listen(Text, { group: "other" })
        yield* Publisher.publish(Text, "x")
        yield* soon(Effect.all([Queue.take(seen), Queue.take(other.seen)]))
        yield* soon(subscription.unsubscribe({ removeGroup: true }))
        const broker = yield* Broker.Broker
        const { channels, waiting } = yield* broker.info(Channel.selector(Text))
        assert.deepStrictEqual(channels.flatMap(({ groups }) => groups.map(({ group }) => group)), ["other"])
        assert.strictEqual(waiting, 0)
        const again = yield* listen(Text, { group: "g", startFrom: "latest" })
        yield* Publisher.publish(Text, "new")
        assert.strictEqual((yield* soon(Queue.take(again.seen))).payload, "new")
      })
    )
  })

  describe("Subscription: end of its scope", () => {
    test(
      "waits for the handlers that run",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const scope = yield* Scope.make()
        const { seen, subscription } = yield* Scope.provide(
          listen(Text, { handler: () => Deferred.await(gate) }),
          scope
        )
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        const closing = yield* Effect.forkChild(soon(Scope.close(scope, Exit.void)), { startImmediately: true })
        yield* backend.advance("50 millis")
        assert.strictEqual((yield* subscription.stats).inFlight, 1)
        assert.isUndefined(closing.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(closing)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "interrupts them after drainTimeout, and gives everything back to others at once, at no cost of an attempt",
      Effect.gen(function*() {
        const interrupted = yield* Deferred.make<void>()
        const scope = yield* Scope.make()
        const first = yield* Scope.provide(
          listen(Text, {
            lease,
            prefetch: 5,
            drainTimeout: 100,
            handler: () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
          }),
          scope
        )
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(first.seen))
        const second = yield* listen(Text, { lease })
        const since = yield* Clock.currentTimeMillis
        const closing = yield* Effect.forkChild(soon(Scope.close(scope, Exit.void)))
        const messages = yield* soon(Queue.takeN(second.seen, 3))
        const waited = (yield* Clock.currentTimeMillis) - since
        yield* Fiber.join(closing)
        assert.isTrue(yield* Deferred.isDone(interrupted))
        assert.isAtLeast(waited, 99)
        assert.isBelow(waited, wellBeforeTheLease)
        assert.sameMembers(messages.map(({ payload }) => payload), ["a", "b", "c"])
        for (const { attempt, crashes } of messages) assert.deepStrictEqual([attempt, crashes], [1, 0])
        yield* soon(second.subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "stores the acknowledgements of the last handled messages",
      Effect.gen(function*() {
        const count = 300
        const { seen, subscription } = yield* listen(Text, { concurrency: 20 })
        yield* Publisher.publishAll(Text, Array.from({ length: count }, (_, i) => String(i)))
        yield* soon(Queue.takeN(seen, count))
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.strictEqual((yield* subscription.stats).processed, count)
      })
    )
  })

  describe("Subscription: stats", () => {
    test(
      "adds up: every published message is processed or dead",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 4,
          maxRetries: 1,
          retryDelay: 10,
          handler: ({ attempt, payload }) =>
            payload === "never" || (payload === "once" && attempt === 1)
              ? Effect.fail(new Declined({ message: "" }))
              : Effect.void
        })
        yield* Publisher.publishAll(Amount, [1, 2])
        yield* Publisher.publishAll(Text, ["never", "ok", "once", "ok", "never", "ok", "once", "ok"])
        yield* soon(Queue.takeN(seen, 12))
        yield* soon(subscription.drain)
        const { lastMessageAtMillis, lastSettledAtMillis, processing, ...stats } = yield* subscription.stats
        assert.deepStrictEqual(stats, {
          processed: 6,
          duplicates: 0,
          failed: 6,
          retried: 4,
          dead: 4,
          expired: 0,
          crashed: 0,
          lostLeases: 0,
          vanished: 0,
          inFlight: 0,
          held: 0
        })
        assert.isAtMost(lastSettledAtMillis!, yield* Clock.currentTimeMillis)
        assert.isAtMost(lastMessageAtMillis!, lastSettledAtMillis!)
        // Two could not be decoded.
        assert.strictEqual(processing?.count, 12 + 2)
        assert.strictEqual((yield* letters).length, 4)
      })
    )
  })

  describe("Subscription.stream", () => {
    test(
      "hands out messages to be settled, and gives back the rest when it ends early",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a", "b", "c", "d", "e"])
        const taken = yield* Subscription.stream(Text, { group: "g", lease, concurrency: 2, prefetch: 2 }).pipe(
          Stream.mapEffect((message) =>
            Effect.as(message.payload === "b" ? message.term("no b") : message.ack, message.payload)
          ),
          Stream.take(3),
          Stream.runCollect,
          soon
        )
        const since = yield* Clock.currentTimeMillis
        const { seen, subscription } = yield* listen(Text, { group: "g", lease })
        const rest = yield* soon(Queue.takeN(seen, 2))
        assert.isBelow((yield* Clock.currentTimeMillis) - since, wellBeforeTheLease)
        assert.deepStrictEqual([...taken], ["a", "b", "c"])
        assert.sameMembers(rest.map(({ payload }) => payload), ["d", "e"])
        for (const { attempt, crashes } of rest) assert.deepStrictEqual([attempt, crashes], [1, 0])
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.message), ["no b"])
      })
    )

    test(
      "holds no more than concurrency and prefetch allow until they are settled",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, Array.from({ length: 20 }, (_, i) => String(i)))
        const seen = yield* Queue.unbounded<Effect.Effect<void, unknown>>()
        yield* Effect.forkScoped(
          Stream.runForEach(
            Subscription.stream(Text, { concurrency: 2, prefetch: 1 }),
            ({ ack }) => Queue.offer(seen, ack)
          )
        )
        const first = yield* soon(Queue.takeN(seen, 3))
        yield* backend.advance("50 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* soon(Effect.all(first))
        yield* soon(Queue.takeN(seen, 3))
      })
    )

    test(
      "ends when its subscription is ended",
      Effect.gen(function*() {
        const ended = yield* Effect.forkChild(Stream.runDrain(Subscription.stream(Text)))
        const running = yield* soon(
          Effect.repeat(Effect.andThen(Effect.yieldNow, Subscription.running), { until: (all) => all.length === 1 })
        )
        yield* soon(running[0]!.drain)
        yield* soon(Fiber.join(ended))
      })
    )

    test(
      "fails with the error of its options",
      Effect.gen(function*() {
        const error = yield* Effect.flip(Stream.runDrain(Subscription.stream(Text, { concurrency: 0 })))
        assert.strictEqual(error._tag, "InvalidSubscription")
      })
    )
  })
}
