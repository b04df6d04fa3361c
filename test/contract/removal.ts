/** A removed group stays removed: its other consumers end, and report why. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue, Schema, Stream } from "effect"
import { Broker, Channel, Publisher, Subscription } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Texts = Channel.pattern("texts.**", { payload: Schema.String })

export const removalSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  const groupsOf = (source: Channel.Source) =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const { channels } = yield* broker.info(Channel.selector(source))
      return channels.flatMap((channel) => channel.groups.map(({ group }) => group))
    })

  describe("Subscription: a group that is removed while others consume it", () => {
    test(
      "stays removed: its other consumers end with GroupRemoved, and handle nothing twice",
      Effect.gen(function*() {
        const other = yield* listen(Text, { group: "other" })
        const survivors = [yield* listen(Text, { group: "g" }), yield* listen(Text, { group: "g", prefetch: 0 })]
        const first = yield* listen(Text, { group: "g" })
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.takeN(other.seen, 3))
        yield* soon(first.subscription.unsubscribe({ removeGroup: true }))
        for (const { subscription } of survivors) {
          const reason = yield* soon(Effect.flip(subscription.ended))
          assert.strictEqual(reason._tag, "GroupRemoved")
          assert.deepInclude(reason, { group: "g", patterns: ["texts"] })
          // It has ended; a later call sees the same end.
          yield* soon(subscription.drain)
          yield* soon(subscription.unsubscribe())
        }
        yield* soon(first.subscription.ended)
        assert.deepStrictEqual((yield* Subscription.running).map(({ group }) => group), ["other"])
        yield* Publisher.publish(Text, "d")
        assert.strictEqual((yield* soon(Queue.take(other.seen))).payload, "d")
        assert.deepStrictEqual(yield* groupsOf(Text), ["other"])
        const seen = yield* Effect.forEach([first, ...survivors], ({ seen }) => Queue.clear(seen))
        const payloads = seen.flat().map(({ payload }) => payload)
        assert.strictEqual(new Set(payloads).size, payloads.length)
        assert.notInclude(payloads, "d")
      })
    )

    test(
      "interrupts their handlers, whose messages are forgotten with the group",
      Effect.gen(function*() {
        const interrupted = yield* Deferred.make<void>()
        const busy = yield* listen(Text, {
          group: "g",
          handler: () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
        })
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(busy.seen))
        const broker = yield* Broker.Broker
        yield* broker.removeGroup("g", Channel.selector(Text))
        yield* soon(Deferred.await(interrupted))
        yield* soon(Effect.flip(busy.subscription.ended))
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a new subscription makes a new group, which those of the old one do not join",
      Effect.gen(function*() {
        const old = yield* listen(Text, { group: "g" })
        yield* old.subscription.pause
        const broker = yield* Broker.Broker
        yield* broker.removeGroup("g", Channel.selector(Text))
        const fresh = yield* listen(Text, { group: "g", startFrom: "latest" })
        yield* old.subscription.resume
        yield* soon(Effect.flip(old.subscription.ended))
        yield* Publisher.publishAll(Text, ["a", "b"])
        const messages = yield* soon(Queue.takeN(fresh.seen, 2))
        assert.sameMembers(messages.map(({ payload }) => payload), ["a", "b"])
        assert.strictEqual(yield* Queue.size(old.seen), 0)
        assert.isTrue((yield* Subscription.running).includes(fresh.subscription))
      })
    )

    test(
      "of a pattern, also where it has no channel yet; the group under another pattern goes on",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Texts, { group: "g" })
        const named = yield* listen(Text, { group: "g" })
        const broker = yield* Broker.Broker
        yield* broker.removeGroup("g", Channel.selector(Texts))
        yield* soon(Effect.flip(subscription.ended))
        yield* Publisher.publish(Text, "a")
        assert.strictEqual((yield* soon(Queue.take(named.seen))).payload, "a")
      })
    )

    test(
      "its stream fails with GroupRemoved",
      Effect.gen(function*() {
        const started = yield* Deferred.make<void>()
        const streaming = yield* Effect.forkChild(Stream.runForEach(
          Subscription.stream(Text, { group: "g" }),
          ({ ack }) => Effect.andThen(ack, Deferred.succeed(started, undefined))
        ))
        yield* Publisher.publish(Text, "a")
        yield* soon(Deferred.await(started))
        const broker = yield* Broker.Broker
        yield* broker.removeGroup("g", Channel.selector(Text))
        const error = yield* soon(Effect.flip(Fiber.join(streaming)))
        assert.strictEqual(error._tag, "GroupRemoved")
      })
    )
  })
}
