/** Subscriptions to dead letters. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Queue, Result, Schema, Scope, Stream } from "effect"
import type { DeadLetter } from "rotif"
import { Broker, Channel, DeadLetters, Publisher, Retry } from "rotif"
import { Amount, burying, Declined, everything, Paid, raws, Text, waiting } from "./burying.ts"
import { type Backend, listen, promises } from "./kit.ts"

export const deadLetterOffersSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  const bury = burying(backend)
  const until = waiting(backend)

  describe("DeadLetters.subscribe", () => {
    /** Subscribes, and gives every letter to the test before `handler` runs. */
    const watch = Effect.fnUntraced(function*<E = never>(
      options?: Partial<DeadLetters.SubscribeOptions<DeadLetter.Offered, E, never>>
    ) {
      const seen = yield* Queue.unbounded<DeadLetter.Offered>()
      const { handler = () => Effect.void, ...rest } = options ?? {}
      yield* DeadLetters.subscribe({
        ...rest,
        handler: (letter: DeadLetter.Offered) => Effect.andThen(Queue.offer(seen, letter), handler(letter))
      })
      return seen
    })

    test(
      "offers each letter once to each name, also those that were there; without ack they stay",
      Effect.gen(function*() {
        yield* bury(Text, ["there"])
        const first = yield* watch({ name: "first" })
        const second = yield* watch({ name: "second" })
        const late = yield* watch({ name: "late", startFrom: "latest" })
        assert.strictEqual((yield* soon(Queue.take(first))).raw, "\"there\"")
        yield* bury(Text, ["new"])
        assert.strictEqual((yield* soon(Queue.take(first))).raw, "\"new\"")
        assert.deepStrictEqual((yield* soon(Queue.takeN(second, 2))).map(({ raw }) => raw), ["\"there\"", "\"new\""])
        const letter = yield* soon(Queue.take(late))
        assert.deepInclude({ raw: letter.raw, offerCount: letter.offerCount }, { raw: "\"new\"", offerCount: 1 })
        yield* backend.advance("50 millis")
        for (const seen of [first, second, late]) assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual(yield* raws, ["there", "new"])
      })
    )

    test(
      "processes of one name share the letters, and go on where they were",
      Effect.gen(function*() {
        const both = yield* Queue.unbounded<string>()
        const handler = (letter: DeadLetter.Offered) => Queue.offer(both, letter.raw)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* watch({ name: "n", handler })
          yield* watch({ name: "n", handler })
          yield* bury(Text, ["1", "2", "3", "4", "5", "6"])
          assert.sameMembers(
            yield* soon(Queue.takeN(both, 6)),
            ["1", "2", "3", "4", "5", "6"].map((text) => JSON.stringify(text))
          )
          yield* backend.advance("50 millis")
        }))
        yield* bury(Text, ["7"])
        yield* watch({ name: "n", handler })
        assert.strictEqual(yield* soon(Queue.take(both)), "\"7\"")
        yield* backend.advance("50 millis")
        assert.strictEqual(yield* Queue.size(both), 0)
      })
    )

    test(
      "ack deletes the letter, requeue sends it home",
      Effect.gen(function*() {
        const home = yield* listen(Text, { group: "g", startFrom: "latest", handler: () => Effect.void })
        yield* soon(home.subscription.drain)
        const moved = yield* Deferred.make<boolean>()
        yield* watch({
          handler: (letter) =>
            letter.raw === "\"done\""
              ? letter.ack
              : letter.raw === "\"home\""
              ? Effect.flatMap(letter.requeue, (did) => Deferred.succeed(moved, did))
              : letter.keep
        })
        yield* bury(Text, ["done", "home", "keep"], { group: "g" })
        assert.isTrue(yield* soon(Deferred.await(moved)))
        yield* until(DeadLetters.count(), (count) => count === 1)
        assert.deepStrictEqual(yield* raws, ["keep"])
        const { seen } = yield* listen(Text, { group: "g" })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "home")
      })
    )

    test(
      "offers a letter again whose handler failed, each time later, until it does not fail",
      Effect.gen(function*() {
        const times: Array<number> = []
        yield* bury(Text, ["x"])
        const seen = yield* watch({
          retry: Retry.exponential(60),
          handler: (letter) =>
            Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<unknown, unknown> => {
              times.push(now)
              if (letter.offerCount === 1) return Effect.fail(new Declined({ message: "not yet" }))
              return letter.offerCount === 2 ? Effect.die("bug") : letter.ack
            })
        })
        const letters = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(letters.map(({ offerCount }) => offerCount), [1, 2, 3])
        assert.isAtLeast(times[1]! - times[0]!, 60 - 1)
        assert.isAtLeast(times[2]! - times[1]!, 120 - 1)
        yield* until(DeadLetters.count(), (count) => count === 0)
      })
    )

    test(
      "keeps a letter when its retries are over, and when it was nacked offers it again",
      Effect.gen(function*() {
        yield* bury(Text, ["x"])
        const seen = yield* watch({
          retry: Retry.fixed(1, { times: 1 }),
          handler: (letter) =>
            Effect.andThen(
              letter.offerCount === 1 ? letter.nack({ delay: 1 }) : Effect.void,
              letter.offerCount === 1 ? Effect.void : Effect.fail(new Declined({ message: "no" }))
            )
        })
        yield* soon(Queue.takeN(seen, 2))
        yield* backend.advance("50 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual(yield* raws, ["x"])
      })
    )

    test(
      "a letter that was offered to a lost process is offered again after the lease, and the late one is refused",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { letters, shards } = broker
        yield* bury(Text, ["x"])
        const shard = Number((yield* everything)[0]!.letterId.split(":")[0])
        assert.isBelow(shard, shards)
        const leaseMillis = 200
        const from = yield* Clock.currentTimeMillis
        const { offers } = yield* letters.offer(shard, { name: "n", limit: 5, leaseMillis, start: "earliest" })
        assert.deepStrictEqual(offers.map(({ offerCount }) => offerCount), [1])
        const gate = yield* Deferred.make<void>()
        const seen = yield* watch({ name: "n", lease: leaseMillis, handler: () => Deferred.await(gate) })
        const letter = yield* soon(Queue.take(seen))
        assert.isAtLeast((yield* Clock.currentTimeMillis) - from, leaseMillis - 1)
        assert.strictEqual(letter.offerCount, 2)
        const { letterId, token } = { ...offers[0]!.letter, token: offers[0]!.token }
        for (const outcome of ["remove", "keep", "again", "release", "renew"] as const) {
          assert.deepStrictEqual(yield* letters.conclude(shard, "n", [{ letterId, token, outcome, millis: 0 }]), [
            letterId
          ])
        }
        // The lease of the second one is renewed while its handler runs.
        yield* backend.advance(3 * leaseMillis)
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* raws, ["x"])
      })
    )

    test(
      "interrupts a handler that lost its lease; it can settle nothing any more",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        yield* bury(Text, ["x"])
        const shard = Number((yield* everything)[0]!.letterId.split(":")[0])
        const interrupted = yield* Deferred.make<void>()
        const seen = yield* watch({
          name: "n",
          lease: 150,
          // After the subscription is forgotten, the letter is offered again as if for the first time, and that handler does not end.
          drainTimeout: 0,
          handler: ({ offerCount }) =>
            offerCount === 1
              ? Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
              : Effect.void
        })
        const letter = yield* soon(Queue.take(seen))
        // As if all records of it had been lost.
        yield* broker.letters.forget(shard, "n")
        yield* soon(Deferred.await(interrupted))
        const error = yield* Effect.flip(letter.ack)
        assert.strictEqual(error._tag, "OfferLost")
        assert.deepStrictEqual(yield* raws, ["x"])
      })
    )

    test(
      "the end of its scope interrupts handlers and gives their letters back at once, at no cost of an offer",
      Effect.gen(function*() {
        yield* bury(Text, ["x"])
        const scope = yield* Scope.make()
        const first = yield* Scope.provide(watch({ name: "n", lease: "1 hour", handler: () => Effect.never }), scope)
        yield* soon(Queue.take(first))
        const second = yield* watch({ name: "n", lease: "1 hour", checkInterval: "1 hour" })
        yield* soon(Scope.close(scope, Exit.void))
        assert.strictEqual((yield* soon(Queue.take(second))).offerCount, 1)
      })
    )

    test(
      "decodes payloads by the schemas of its source, and passes over other channels and groups",
      Effect.gen(function*() {
        const Loose = Channel.make("amounts", { payload: Schema.Unknown })
        const seen = yield* Queue.unbounded<readonly [string, number | string]>()
        yield* DeadLetters.subscribe(Channel.union([Amount, Paid]), {
          group: "g",
          handler: (letter) =>
            Queue.offer(seen, [
              letter.channel,
              letter.payload._tag === "Success" ? letter.payload.success : letter.payload.failure._tag
            ])
        })
        const amounts = yield* listen(Amount, { group: "g", maxRetries: 0, handler: () => Effect.die("no") })
        yield* Publisher.publish(Loose, "seven")
        yield* Publisher.publish(Loose, 7)
        yield* bury(Text, ["text"], { group: "g" })
        yield* bury(Paid, ["paid"], { group: "g" })
        yield* bury(Paid, ["other group"], { group: "h", startFrom: "latest" })
        const letters = yield* soon(Queue.takeN(seen, 3))
        yield* soon(amounts.subscription.drain)
        assert.sameDeepMembers([...letters], [["amounts", "InvalidPayload"], ["amounts", 7], ["orders.paid", "paid"]])
        yield* backend.advance("50 millis")
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.strictEqual(yield* DeadLetters.count(), 5)
      })
    )

    test(
      "forget: a name begins again with the oldest letter",
      Effect.gen(function*() {
        yield* bury(Text, ["x"])
        yield* Effect.scoped(Effect.gen(function*() {
          yield* soon(Queue.take(yield* watch({ name: "n" })))
        }))
        yield* DeadLetters.forgetSubscription("n")
        const letter = yield* soon(Queue.take(yield* watch({ name: "n" })))
        assert.deepStrictEqual([letter.raw, letter.offerCount], ["\"x\"", 1])
      })
    )
  })

  describe("DeadLetters.stream", () => {
    test(
      "hands out letters to be settled, and gives back the rest when it ends",
      Effect.gen(function*() {
        yield* bury(Text, ["a", "b", "c"])
        const taken = yield* DeadLetters.stream({ name: "n", concurrency: 2 }).pipe(
          Stream.mapEffect((letter) => Effect.as(letter.raw === "\"a\"" ? letter.ack : letter.keep, letter.raw)),
          Stream.take(2),
          Stream.runCollect,
          soon
        )
        assert.deepStrictEqual([...taken], ["\"a\"", "\"b\""])
        const [last] = yield* soon(Stream.runCollect(Stream.take(DeadLetters.stream({ name: "n" }), 1)))
        assert.deepStrictEqual([last!.raw, last!.offerCount], ["\"c\"", 1])
        assert.deepStrictEqual(yield* raws, ["b", "c"])
      })
    )

    test(
      "has the payload by the schema of its source",
      Effect.gen(function*() {
        yield* bury(Paid, ["a"])
        const [letter] = yield* soon(Stream.runCollect(Stream.take(DeadLetters.stream(Paid), 1)))
        assert.deepStrictEqual(letter!.payload, Result.succeed("a"))
      })
    )
  })
}
