/** `Subscription.stream`: batches, lost leases, and attempts that failed. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Fiber, Queue, Schedule, Schema, Stream } from "effect"
import { Broker, Channel, Publisher, Retry, Subscription } from "rotif"
import { type Backend, leftover, letters, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

export const streamsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  const lease = 300

  /** Streams messages as a consumer that cannot renew its leases. */
  const cutOff = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      return yield* Effect.provideService(effect, Broker.Broker, {
        ...broker,
        join: (membership) =>
          Effect.map(broker.join(membership), (member): Broker.Member => ({
            ...member,
            renew: () => Effect.succeed([])
          }))
      })
    })

  /** Another consumer takes over the messages when the lease has expired, and handles them. */
  const takeOver = Effect.scoped(Effect.gen(function*() {
    const broker = yield* Broker.Broker
    const selector = Channel.selector(Text)
    const other = yield* broker.join({
      shard: broker.shardsOf(selector)[0]!,
      group: "g",
      consumer: "other",
      selector,
      start: { _tag: "Earliest" },
      leaseMillis: lease
    })
    const claim = Effect.andThen(backend.advance("20 millis"), other.claim(10))
    const { deliveries } = yield* Effect.repeat(claim, { until: ({ deliveries }) => deliveries.length > 0 })
    yield* other.ack(deliveries)
    return deliveries.map((delivery) => delivery.payload)
  }))

  describe("Subscription.stream: batches", () => {
    test(
      "fills batches of 100 by its defaults, one after the other, without waiting for their time",
      Effect.gen(function*() {
        const count = 1_000
        yield* Publisher.publishAll(Text, Array.from({ length: count }, String))
        const since = yield* Clock.currentTimeMillis
        const sizes = yield* Subscription.stream(Text, { group: "g" }).pipe(
          Stream.groupedWithin(100, "1 minute"),
          Stream.mapEffect((batch) =>
            Effect.as(Effect.forEach(batch, ({ ack }) => ack, { concurrency: "unbounded" }), batch.length)
          ),
          Stream.take(count / 100),
          Stream.runCollect,
          soon
        )
        assert.deepStrictEqual([...sizes], Array.from({ length: count / 100 }, () => 100))
        assert.isBelow((yield* Clock.currentTimeMillis) - since, 30_000)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("Subscription.stream: leases that were lost", () => {
    test(
      "fail no settlement, and the stream goes on",
      Effect.gen(function*() {
        const seen = yield* Queue.unbounded<string>()
        const go = yield* Queue.unbounded<void>()
        const streaming = yield* Effect.forkScoped(cutOff(Stream.runForEach(
          Subscription.stream(Text, { group: "g", lease }),
          (message) =>
            Effect.gen(function*() {
              yield* Queue.offer(seen, message.payload)
              yield* Queue.take(go)
              yield* message.payload === "c"
                ? message.ack
                : message.payload === "b"
                ? message.fail(new Error("no"))
                : message.nack()
            })
        )))
        for (const payload of ["a", "b"]) {
          yield* Publisher.publish(Text, payload)
          assert.strictEqual(yield* soon(Queue.take(seen)), payload)
          assert.deepStrictEqual(yield* takeOver, [JSON.stringify(payload)])
          yield* Queue.offer(go, undefined)
        }
        yield* Publisher.publish(Text, "c")
        assert.strictEqual(yield* soon(Queue.take(seen)), "c")
        yield* Queue.offer(go, undefined)
        const [subscription] = yield* Subscription.running
        yield* until(backend, Effect.map(subscription!.stats, ({ processed }) => processed === 1))
        assert.strictEqual((yield* subscription!.stats).lostLeases, 2)
        assert.isUndefined(streaming.pollUnsafe())
      })
    )

    test(
      "fail it where that is asked for",
      Effect.gen(function*() {
        const seen = yield* Queue.unbounded<string>()
        const go = yield* Queue.unbounded<void>()
        const streaming = yield* Effect.forkScoped(cutOff(Stream.runForEach(
          Subscription.stream(Text, { group: "g", lease, leaseLost: "fail" }),
          (message) =>
            Effect.andThen(
              Queue.offer(seen, message.payload),
              Effect.andThen(Queue.take(go), message.term("not for us"))
            )
        )))
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        yield* takeOver
        yield* Queue.offer(go, undefined)
        assert.strictEqual((yield* soon(Effect.flip(Fiber.join(streaming))))._tag, "LeaseLost")
      })
    )
  })

  describe("Subscription.stream: message.fail", () => {
    test(
      "does what the policy of the stream says about the error",
      Effect.gen(function*() {
        const seen: Array<readonly [string, number]> = []
        const taken = Subscription.stream(Text, {
          group: "g",
          retry: Retry.make({
            Declined: Retry.term,
            Down: Schedule.spaced("20 millis")
          }),
          maxRetries: 1
        }).pipe(
          Stream.mapEffect((message) => {
            seen.push([message.payload, message.attempt])
            return message.payload === "ok"
              ? message.ack
              : message.fail({ _tag: message.payload === "down" ? "Down" : "Declined" })
          }),
          Stream.take(4),
          Stream.runDrain
        )
        yield* Publisher.publishAll(Text, ["down", "declined", "ok"])
        yield* soon(taken)
        assert.sameDeepMembers(seen, [["down", 1], ["declined", 1], ["ok", 1], ["down", 2]])
        const dead = yield* letters
        assert.sameDeepMembers(dead.map(({ failure }) => [failure.reason, failure.errorTag]), [
          ["term", "Declined"],
          ["exhausted", "Down"]
        ])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "waits for retryDelay and counts maxRetries without a policy",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x")
        // Longer than the default.
        const retryDelay = 1_200
        const attempts = yield* Subscription.stream(Text, { group: "g", retryDelay, maxRetries: 1 }).pipe(
          Stream.mapEffect((message) =>
            Effect.gen(function*() {
              const at = yield* Clock.currentTimeMillis
              yield* message.fail("no")
              return [message.attempt, at] as const
            })
          ),
          Stream.take(2),
          Stream.runCollect,
          soon
        )
        assert.deepStrictEqual(attempts.map(([attempt]) => attempt), [1, 2])
        assert.isAtLeast(attempts[1]![1] - attempts[0]![1], retryDelay - 20)
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.reason), ["exhausted"])
      })
    )
  })
}
