/** Pub/Sub mode, on every backend. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch, Layer, Option, Queue, Schema, Scope, Stream } from "effect"
import { Broadcast, Broker, Channel, Publisher } from "rotif"
import * as LogLines from "../fixtures/logLines.ts"
import { type Backend, hanging, listen as subscribeTo, promises } from "./kit.ts"

class Money extends Schema.Class<Money>("Money")({ amount: Schema.BigInt, currency: Schema.String }) {}

const Price = Channel.make("prices.:symbol", { payload: Schema.Struct({ at: Schema.Date, price: Money }) })
const Text = Channel.make("texts", { payload: Schema.String })
const Count = Channel.make("counts", { payload: Schema.Int })
const Room = Channel.make("rooms.:id", { payload: Schema.String })
const text = (name: string) => Channel.make(name, { payload: Schema.String })
const Hanging = Channel.make("hanging", { payload: hanging })

/** Listens, and records the calls of the handler and of `onGap` in order. */
const listen = Effect.fnUntraced(function*<S extends Channel.Source>(
  source: S,
  options?: Partial<Broadcast.ListenOptions<S, never, never>>
) {
  const seen = yield* Queue.unbounded<Broadcast.Message<S> | Broadcast.Gap>()
  const { handler = () => Effect.void, ...rest } = options ?? {}
  const listener = yield* Broadcast.listen(source, {
    onGap: (gap) => Queue.offer(seen, gap),
    ...rest,
    handler: (message) => Effect.andThen(Queue.offer(seen, message), handler(message))
  })
  return { listener, seen }
})

const payloadOf = (item: object) => "payload" in item ? item.payload : item

/** Sends raw text, past the schema of the channel. */
const sendRaw = Effect.fnUntraced(function*(channel: string, payload: string) {
  const { broadcast } = yield* Broker.Broker
  yield* broadcast.publish([{ channel, payload }])
})

export const broadcastSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  /** Waits until the counters of a listener are as expected. */
  const counted = (listener: Broadcast.Listener, expected: Partial<Broadcast.Stats>) =>
    soon(Effect.gen(function*() {
      const isThere = (stats: Broadcast.Stats) =>
        Object.entries(expected).every(([name, value]) => Reflect.get(stats, name) === value)
      while (!isThere(yield* listener.stats)) {
        yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
    }))

  describe("Broadcast.publish", () => {
    test(
      "carries payload, params and headers to all who listen",
      Effect.gen(function*() {
        const one = yield* listen(Price)
        const two = yield* listen(Price)
        const streamed = yield* Broadcast.subscribe(Channel.pattern("prices.*", { payload: Price.payload })).pipe(
          Stream.take(1),
          Stream.runCollect,
          Effect.forkChild
        )
        const payload = {
          at: new Date(1_700_000_000_123),
          price: new Money({ amount: 9_007_199_254_740_993n, currency: "€" })
        }
        const publish = Broadcast.publish(Price, payload, { params: { symbol: "a\n.b:*" }, headers: { trace: "ä\n1" } })
        const first = yield* soon(Effect.raceFirst(
          Fiber.join(streamed),
          Effect.forever(Effect.andThen(publish, Effect.yieldNow))
        ))
        const messages = [first[0]!, yield* soon(Queue.take(one.seen)), yield* soon(Queue.take(two.seen))]
        for (const message of messages) {
          assert.deepStrictEqual({ ...message }, {
            channel: "prices.:symbol",
            payload,
            params: { symbol: "a\n.b:*" },
            headers: { trace: "ä\n1" }
          })
          assert.instanceOf("payload" in message ? message.payload.price : undefined, Money)
        }
      })
    )

    test(
      "stores nothing: only who listens hears it",
      Effect.gen(function*() {
        yield* Broadcast.publish(Text, "early")
        const { seen } = yield* listen(Text)
        const { seen: stored } = yield* subscribeTo(Text)
        yield* Broadcast.publish(Text, "now")
        yield* Publisher.publish(Text, "kept")
        assert.strictEqual(payloadOf(yield* soon(Queue.take(seen))), "now")
        assert.strictEqual((yield* soon(Queue.take(stored))).payload, "kept")
        assert.strictEqual(yield* Queue.size(seen), 0)
        const { channels } = yield* (yield* Broker.Broker).info(Channel.selector(Text))
        assert.deepStrictEqual(channels.map(({ length }) => length), [1])
      })
    )

    test(
      "refuses what does not fit, and sends nothing",
      Effect.gen(function*() {
        const { seen } = yield* listen(Channel.pattern("**", { payload: Schema.Unknown }))
        const errors = [
          yield* Effect.flip(Broadcast.publish(Count, 1.5)),
          yield* Effect.flip(Broadcast.publish(Room, "x", { params: { id: "" } })),
          yield* Effect.flip(Broadcast.publish(Text, "x", { headers: { n: 1 as unknown as string } })),
          yield* Effect.flip(Broadcast.publish(Text, "x".repeat(99))),
          yield* Effect.flip(Broadcast.publish(Text, "x", { headers: { long: "ü".repeat(60) } })),
          yield* Effect.flip(Broadcast.publishAll(Count, [1, 2, 2.5]))
        ]
        yield* Broadcast.publish(Text, "x".repeat(98))
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), [
          "InvalidPayload",
          "InvalidParams",
          "InvalidPublishOptions",
          "PayloadTooLarge",
          "PayloadTooLarge",
          "InvalidPayload"
        ])
        assert.deepInclude(errors[3], { channel: "texts", bytes: 101, limit: 100 })
        assert.strictEqual(payloadOf(yield* soon(Queue.take(seen))), "x".repeat(98))
      }),
      { maxPayloadBytes: 100 }
    )
  })

  describe("Broadcast.publishAll", () => {
    test(
      "keeps the order",
      Effect.gen(function*() {
        const payloads = Array.from({ length: 1_200 }, (_, i) => i)
        const { seen } = yield* listen(Count)
        yield* Broadcast.publishAll(Count, [])
        yield* Broadcast.publishAll(Count, payloads)
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 1_200))).map(payloadOf), payloads)
      })
    )
  })

  describe("Broadcast.listen", () => {
    test(
      "tells the members of a union apart by their channel",
      Effect.gen(function*() {
        const { seen } = yield* listen(Channel.union([Text, Count, Room]))
        yield* Broadcast.publish(Text, "a")
        yield* Broadcast.publish(Count, 5)
        yield* Broadcast.publish(Room, "b", { params: { id: "7" } })
        const told = (yield* soon(Queue.takeN(seen, 3))).map((message) => {
          if (!("channel" in message)) return message.reason
          switch (message.channel) {
            case "texts":
              return message.payload.length
            case "counts":
              return message.payload + 1
            case "rooms.:id":
              return message.params.id
          }
        })
        assert.sameMembers(told, [1, 6, "7"])
      })
    )

    test(
      "gives a pattern the same meaning as a subscription",
      Effect.gen(function*() {
        const patterns = ["a.*", "a.**", "**.z", "*.b[c\\.*", "a"]
        const all = yield* Effect.forEach(patterns, (name) => listen(Channel.pattern(name, { payload: Schema.String })))
        const names = ["a.b", "a.b.c", "a", "b.z", "a.x.z", "z", "a.b[c\\.d", "a.bxc.d", "aab", "a.", "ab"]
        for (const name of names.filter((name) => name !== "a.")) yield* Broadcast.publish(text(name), name)
        // Every pattern but the last one receives it; by then all earlier messages have arrived.
        for (const end of ["a.z", "a.b[c\\.z", "a"]) yield* Broadcast.publish(text(end), "end")
        const heard = yield* Effect.forEach(all, ({ seen }) =>
          soon(Effect.gen(function*() {
            const payloads: Array<unknown> = []
            for (let last: unknown; last !== "end"; payloads.push(last)) last = payloadOf(yield* Queue.take(seen))
            return payloads.slice(0, -1).map(String).sort()
          })))
        assert.deepStrictEqual(heard, [
          ["a.b"],
          ["a.b", "a.b.c", "a.b[c\\.d", "a.bxc.d", "a.x.z"],
          ["a.x.z", "b.z"],
          ["a.b[c\\.d"],
          ["a"]
        ])
      })
    )

    test(
      "reports what it cannot decode, and goes on",
      Effect.gen(function*() {
        const errors = yield* Queue.unbounded<Channel.InvalidPayload>()
        const { listener, seen } = yield* listen(Count, { onInvalid: (error) => Queue.offer(errors, error) })
        yield* sendRaw("counts", "not json")
        yield* sendRaw("counts", `"secret"`)
        yield* Broadcast.publish(Count, 3)
        assert.strictEqual(payloadOf(yield* soon(Queue.take(seen))), 3)
        const reported = yield* Queue.takeN(errors, 2)
        assert.deepStrictEqual(reported.map(({ channel, operation }) => [channel, operation]), [
          ["counts", "decode"],
          ["counts", "decode"]
        ])
        assert.notInclude(reported.map(({ message }) => message).join(), "secret")
        assert.deepInclude(yield* listener.stats, { invalid: 2 })
      })
    )

    test(
      "goes on after a handler and a callback that fail",
      Effect.gen(function*() {
        const got = yield* Deferred.make<number>()
        const listener = yield* Broadcast.listen(Count, {
          handler: ({ payload }) =>
            payload === 1 ? Effect.fail("no") : payload === 2 ? Effect.die("never") : Deferred.succeed(got, payload),
          onInvalid: () => Effect.die("not even this")
        })
        yield* Broadcast.publishAll(Count, [1, 2])
        yield* sendRaw("counts", "?")
        yield* Broadcast.publish(Count, 3)
        assert.strictEqual(yield* soon(Deferred.await(got)), 3)
        yield* counted(listener, { handled: 3, failed: 2, invalid: 1, dropped: 0, interruptions: 0, buffered: 0 })
      })
    )

    const log = LogLines.make()
    test(
      "goes on after a schema and a callback that never answer, in a listener and in a stream",
      Effect.gen(function*() {
        const options = { onInvalid: () => Effect.never }
        const { listener, seen } = yield* listen(Hanging, options)
        const taken = yield* Effect.forkChild(Stream.runHead(Broadcast.subscribe(Hanging, options)), {
          startImmediately: true
        })
        yield* sendRaw("hanging", "not json")
        yield* Broadcast.publish(Hanging, "next")
        assert.strictEqual(payloadOf(yield* soon(Queue.take(seen))), "next")
        assert.strictEqual(payloadOf(Option.getOrThrow(yield* soon(Fiber.join(taken)))), "next")
        assert.lengthOf(
          log.find("Error", "\"hanging\"", "failed (1 so far)", "onInvalid has not answered for 5 seconds"),
          2
        )
        yield* Broadcast.publishAll(Hanging, ["hangs", "last"])
        assert.strictEqual(payloadOf(yield* soon(Queue.take(seen))), "last")
        assert.deepInclude(yield* listener.stats, { handled: 2, failed: 0, invalid: 1 })
      }).pipe(Effect.provide(log.layer))
    )

    test(
      "runs as many handlers at a time as it may",
      Effect.gen(function*() {
        const latch = yield* Latch.make()
        const { listener, seen } = yield* listen(Count, { concurrency: 3, handler: () => latch.await })
        yield* Broadcast.publishAll(Count, [1, 2, 3, 4, 5])
        const first = yield* soon(Queue.takeN(seen, 3))
        yield* counted(listener, { handled: 0, buffered: 2 })
        assert.strictEqual(yield* Queue.size(seen), 0)
        yield* latch.open
        const rest = yield* soon(Queue.takeN(seen, 2))
        assert.sameMembers([...first, ...rest].map(payloadOf), [1, 2, 3, 4, 5])
      })
    )

    test(
      "hears nothing after its end",
      Effect.gen(function*() {
        const { listener, seen } = yield* listen(Text)
        const other = yield* listen(Text)
        const scope = yield* Scope.make()
        const scoped = yield* listen(Text).pipe(Scope.provide(scope))
        yield* listener.stop
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))
        yield* Broadcast.publish(Text, "x")
        yield* soon(Queue.take(other.seen))
        assert.deepStrictEqual([yield* Queue.size(seen), yield* Queue.size(scoped.seen)], [0, 0])
      })
    )

    test(
      "is a layer, too",
      Effect.gen(function*() {
        const got = yield* Deferred.make<string>()
        const Listening = Broadcast.layerListener(Text, { handler: ({ payload }) => Deferred.succeed(got, payload) })
        yield* Layer.build(Listening)
        yield* Broadcast.publish(Text, "hello")
        assert.strictEqual(yield* soon(Deferred.await(got)), "hello")
      })
    )

    test(
      "refuses options that cannot be used",
      Effect.gen(function*() {
        const handler = () => Effect.void
        const options = [{ capacity: 0 }, { concurrency: 1.5 }, { maxBufferedChars: -1 }]
        const errors = yield* Effect.forEach(
          options,
          (each) => Effect.flip(Broadcast.listen(Text, { handler, ...each }))
        )
        assert.deepStrictEqual(errors.map((error) => error._tag === "InvalidListener" ? error.option : error), [
          "capacity",
          "concurrency",
          "maxBufferedChars"
        ])
      })
    )
  })

  describe("a listener that is too slow", () => {
    /** Sends ten messages to a handler that is busy with the first, and then lets it go on. */
    const overwhelm = Effect.fnUntraced(function*(options: Broadcast.StreamOptions<never>, dropped: number) {
      const latch = yield* Latch.make()
      const { listener, seen } = yield* listen(Count, { ...options, handler: () => latch.await })
      yield* Broadcast.publish(Count, 0)
      yield* soon(Queue.take(seen))
      yield* Broadcast.publishAll(Count, [1, 2, 3, 4, 5, 6, 7, 8, 9])
      yield* counted(listener, { dropped })
      yield* latch.open
      yield* counted(listener, { handled: 10 - dropped, buffered: 0 })
      yield* Broadcast.publish(Count, 10)
      yield* counted(listener, { handled: 11 - dropped })
      return (yield* Queue.takeAll(seen)).map(payloadOf)
    })

    test(
      "is told how many messages were dropped, where they are missing",
      Effect.gen(function*() {
        const seen = yield* overwhelm({ capacity: 3 }, 6)
        assert.deepStrictEqual(seen, [1, 2, 3, { reason: "overflow", dropped: 6 }, 10])
      })
    )

    test(
      "loses the newest with \"dropping\"",
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* overwhelm({ capacity: 3, overflow: "dropping" }, 6), [1, 2, 3, 10])
      })
    )

    test(
      "loses the oldest with \"sliding\"",
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* overwhelm({ capacity: 3, overflow: "sliding" }, 6), [7, 8, 9, 10])
      })
    )

    test(
      "is bounded in characters, too, and takes one message of any length",
      Effect.gen(function*() {
        const latch = yield* Latch.make()
        const { listener, seen } = yield* listen(Text, { maxBufferedChars: 10, handler: () => latch.await })
        yield* Broadcast.publish(Text, "first")
        yield* soon(Queue.take(seen))
        yield* Broadcast.publishAll(Text, ["x".repeat(20), "dropped"])
        yield* counted(listener, { dropped: 1, buffered: 1 })
        yield* latch.open
        const rest = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(rest.map(payloadOf), ["x".repeat(20), { reason: "overflow", dropped: 1 }])
      })
    )
  })

  describe("Broadcast.subscribe", () => {
    test(
      "is a stream, and tells of a gap between the messages around it",
      Effect.gen(function*() {
        const told: Array<unknown> = []
        const entered = yield* Deferred.make<void>()
        const latch = yield* Latch.make()
        const running = yield* Broadcast.subscribe(Count, {
          capacity: 2,
          onGap: (gap) => Effect.sync(() => told.push(gap))
        }).pipe(
          Stream.tap(({ payload }) =>
            Effect.andThen(
              Effect.sync(() => told.push(payload)),
              Effect.andThen(Deferred.succeed(entered, undefined), latch.await)
            )
          ),
          Stream.takeUntil(({ payload }) => payload === 9),
          Stream.runDrain,
          Effect.forkChild
        )
        // It listens from some moment on; 0 is sent until then.
        yield* soon(Effect.raceFirst(
          Deferred.await(entered),
          Effect.forever(Effect.andThen(Broadcast.publish(Count, 0), Effect.yieldNow))
        ))
        const probe = yield* listen(Count)
        yield* Broadcast.publishAll(Count, [1, 2, 3, 4, 5])
        yield* soon(Effect.gen(function*() {
          while (payloadOf(yield* Queue.take(probe.seen)) !== 5);
        }))
        yield* latch.open
        yield* soon(Effect.raceFirst(
          Fiber.join(running),
          Effect.forever(Effect.andThen(Broadcast.publish(Count, 9), Effect.yieldNow))
        ))
        const gap = told.findIndex((each) => typeof each === "object")
        // The one it was busy with, and the two that waited.
        assert.isAtLeast(gap, 3)
        assert.deepInclude(told[gap], { reason: "overflow" })
        assert.strictEqual(told.at(-1), 9)
        assert.isFalse(told.slice(0, gap).includes(9))
      })
    )
  })
}
