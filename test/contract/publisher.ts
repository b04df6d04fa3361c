/** Publishing, on every backend. */
import { assert, describe } from "@effect/vitest"
import { DateTime, Effect, Layer, Option, Queue, Schema } from "effect"
import type { Publisher as Publishing } from "rotif"
import { Broker, Channel, Publisher } from "rotif"
import { type Backend, leftover, listen, promises } from "./kit.ts"

class Money extends Schema.Class<Money>("Money")({ amount: Schema.BigInt, currency: Schema.String }) {}

const Order = Channel.make("orders.placed", {
  payload: Schema.Struct({
    id: Schema.String.pipe(Schema.brand("OrderId")),
    at: Schema.Date,
    total: Money,
    note: Schema.Option(Schema.String),
    lines: Schema.Array(Schema.Tuple([Schema.String, Schema.Int]))
  })
})
const Text = Channel.make("texts", { payload: Schema.String })
const OtherText = Channel.make("texts.other", { payload: Schema.String })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })
const Amount = Channel.make("amounts", { payload: Schema.Int })

const stored = (error: Publishing.PublishIncomplete) =>
  error.outcomes.map((outcome) => outcome instanceof Error ? outcome._tag : outcome.id)

/** The broker, with another outcome for the messages that `outcome` chooses. */
const interfering = (outcome: (message: Broker.NewMessage) => Broker.Appended | undefined) =>
  Layer.effect(
    Broker.Broker,
    Effect.map(Broker.Broker, (broker) =>
      Broker.Broker.of({
        ...broker,
        append: Effect.fnUntraced(function*(messages) {
          const passed = messages.filter((message) => outcome(message) === undefined)
          const appended = yield* broker.append(passed)
          return messages.map((message) => outcome(message) ?? appended[passed.indexOf(message)]!)
        })
      }))
  )

const failing = (reason: Broker.BrokerErrorReason, tag: "Failed" | "Uncertain" = "Failed") =>
  Publisher.layer().pipe(Layer.provide(interfering((message) =>
    message.payload.includes("bad")
      ? { _tag: tag, error: new Broker.BrokerError({ reason, operation: "append", message: "as the test wants it" }) }
      : undefined
  )))

export const publisherSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Publisher.publish", () => {
    test(
      "carries a rich payload to the handler as it was",
      Effect.gen(function*() {
        const payload: Channel.PayloadOf<typeof Order> = {
          id: Order.payload.fields.id.make("o-1"),
          at: new Date(1_700_000_000_123),
          total: new Money({ amount: 9_007_199_254_740_993n, currency: "€" }),
          note: Option.some("Grüße, 世界 \u2028 \"x\" 👋"),
          lines: [["a", 1], ["b", -2]]
        }
        const { seen } = yield* listen(Order)
        yield* Publisher.publish(Order, payload)
        const message = yield* soon(Queue.take(seen))
        assert.deepStrictEqual(message.payload, payload)
        assert.instanceOf(message.payload.total, Money)
        assert.instanceOf(message.payload.at, Date)
      })
    )

    test(
      "tells the handler id, headers, params and when it was published",
      Effect.gen(function*() {
        const { seen } = yield* listen(Notice, { group: "mail" })
        const receipt = yield* Publisher.publish(Notice, "hi", {
          id: "welcome-42",
          headers: { trace: "ä b", __proto__x: "1" },
          params: { userId: "42" }
        })
        const message = yield* soon(Queue.take(seen))
        assert.deepStrictEqual(
          { ...receipt, position: "" },
          { _tag: "Published", id: "welcome-42", channel: "users.:userId.notices", position: "" }
        )
        assert.strictEqual(message.id, "welcome-42")
        assert.strictEqual(message.channel, "users.:userId.notices")
        assert.strictEqual(message.group, "mail")
        assert.deepStrictEqual({ ...message.headers }, { trace: "ä b", __proto__x: "1" })
        assert.deepStrictEqual({ ...message.params }, { userId: "42" })
        assert.strictEqual(
          DateTime.toEpochMillis(message.publishedAt),
          Number(receipt.position!.split("-")[0])
        )
        assert.deepStrictEqual([message.attempt, message.deliveryCount, message.crashes], [1, 1, 0])
      })
    )

    test(
      "stores a message nobody subscribes to",
      Effect.gen(function*() {
        const { id } = yield* Publisher.publish(Text, "early")
        const { seen } = yield* listen(Text)
        assert.strictEqual((yield* soon(Queue.take(seen))).id, id)
      })
    )

    test(
      "gives every message an id of its own",
      Effect.gen(function*() {
        const receipts = yield* Publisher.publishAll(Text, Array.from({ length: 200 }, (_, i) => String(i)))
        const again = yield* Publisher.publish(Text, "0")
        assert.strictEqual(new Set([...receipts, again].map(({ id }) => id)).size, 201)
      })
    )

    test(
      "stores the same id once per channel",
      Effect.gen(function*() {
        const { seen } = yield* listen(Channel.union([Text, OtherText]))
        const first = yield* Publisher.publish(Text, "one", { id: "x" })
        const second = yield* Publisher.publish(Text, "two", { id: "x" })
        yield* Publisher.publish(OtherText, "three", { id: "x" })
        yield* Publisher.publish(Text, "last")
        const payloads = (yield* soon(Queue.takeN(seen, 3))).map((message) => message.payload)
        assert.deepStrictEqual(second, { ...first, _tag: "Duplicate" })
        assert.deepStrictEqual(payloads.sort(), ["last", "one", "three"])
      })
    )

    test(
      "refuses a message beyond the limit and sends nothing",
      Effect.gen(function*() {
        const exact = "x".repeat(98)
        yield* Publisher.publish(Text, exact)
        const payload = yield* Effect.flip(Publisher.publish(Text, exact + "x"))
        const headers = yield* Effect.flip(Publisher.publish(Text, "x", { headers: { long: "ü".repeat(60) } }))
        assert.deepInclude(payload, { _tag: "PayloadTooLarge", channel: "texts", bytes: 101, limit: 100 })
        assert.deepInclude(headers, { _tag: "PayloadTooLarge", bytes: 3 + 4 + 120 })
        const broker = yield* Broker.Broker
        const { channels } = yield* broker.info(Channel.selector(Text))
        assert.deepStrictEqual(channels.map(({ length }) => length), [1])
      }),
      { maxPayloadBytes: 100 }
    )

    test(
      "refuses ids and headers that cannot be used",
      Effect.gen(function*() {
        const tags = yield* Effect.forEach([
          { id: "" },
          { id: "x".repeat(513) },
          { id: "a\nb" },
          { headers: { n: 1 as unknown as string } }
        ], (options) => Effect.map(Effect.flip(Publisher.publish(Text, "x", options)), (error) => error._tag))
        assert.deepStrictEqual(tags, Array(4).fill("InvalidPublishOptions"))
      })
    )

    test(
      "with durability a message is stored and handled once, whether it is reached or not, also when it is published again",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const durability = { replicas: 1, timeout: "20 millis" } as const
        // The servers here have no replicas, and the memory needs none.
        const publish = (text: string, options?: Publishing.PublishOptions) =>
          Effect.catchTag(
            Publisher.publish(Text, text, { durability, ...options }),
            "DurabilityNotReached",
            ({ receipt }) => Effect.succeed(receipt)
          )
        const first = yield* soon(publish("one"))
        const again = yield* soon(publish("two", { id: "x" }))
        assert.deepInclude(yield* soon(publish("two", { id: "x" })), { _tag: "Duplicate", position: again.position })
        const later = yield* soon(publish("later", { id: "l", delay: "1 second" }))
        assert.strictEqual(later._tag, "Scheduled")
        yield* Publisher.publish(Text, "three", { durability: false })
        const messages = yield* soon(Queue.takeN(seen, 4))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["one", "two", "three", "later"])
        assert.strictEqual(messages[0]!.id, first.id)
      })
    )

    test(
      "tells the receipt of a message that is stored and not as durable as asked for, one by one and for many",
      Effect.gen(function*() {
        const short = Publisher.layer({ durability: { replicas: 2 } }).pipe(Layer.provide(interfering((message) => {
          assert.deepStrictEqual(message.durability, { replicas: 2, onDisk: false, timeoutMillis: 1_000 })
          return message.payload.includes("bad")
            ? { _tag: "Stored", position: "1-1", shortfall: { replicas: 1, problem: "as the test wants it" } }
            : { _tag: "Stored", position: "1-2" }
        })))
        const one = yield* Effect.flip(Effect.provide(Publisher.publish(Text, "bad", { id: "m-1" }), short))
        assert.deepInclude(one, {
          _tag: "DurabilityNotReached",
          channel: "texts",
          id: "m-1",
          replicas: 1,
          receipt: { _tag: "Published", id: "m-1", channel: "texts", position: "1-1" }
        })
        assert.match(one.message, /is stored, but only 1 of 2 replicas had it in time.*\{ id: "m-1" \} \(as the test/)
        const many = yield* Effect.flip(Effect.provide(Publisher.publishAll(Text, ["good", "bad"]), short))
        assert(many._tag === "PublishIncomplete")
        assert.deepStrictEqual(many.outcomes.map(({ _tag }) => _tag), ["Published", "DurabilityNotReached"])
        assert.match(
          many.message,
          /^1 of 2 messages for "texts" are stored, but not as durably as asked for; the first/
        )
      })
    )

    test(
      "refuses a durability that cannot be used",
      Effect.gen(function*() {
        const wrong: ReadonlyArray<Publishing.Durability> = [
          { replicas: 0 },
          { replicas: 1.5 },
          { timeout: 0 },
          { timeout: "Infinity" },
          { fsync: "yes" as unknown as boolean },
          true as unknown as Publishing.Durability,
          null as unknown as Publishing.Durability
        ]
        const errors = yield* Effect.forEach(
          wrong,
          (durability) => Effect.flip(Publisher.publish(Text, "x", { durability }))
        )
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(7).fill("InvalidPublishOptions"))
        for (const { message } of errors) assert.match(message, /^durability/)
      })
    )

    test(
      "refuses params that do not belong to the channel",
      Effect.gen(function*() {
        const options = [{ params: {} }, { params: { userId: "" } }, { params: { userId: "1", other: "2" } }]
        const tags = yield* Effect.forEach(options, (options) =>
          Effect.map(
            Effect.flip(Publisher.publish(Notice, "x", options as { readonly params: { readonly userId: string } })),
            (error) => error._tag
          ))
        assert.deepStrictEqual(tags, Array(3).fill("InvalidParams"))
      })
    )

    test(
      "distinguishes messages that were not stored, that may be stored, and that are refused",
      Effect.gen(function*() {
        const attempt = Effect.flip(Publisher.publish(Text, "bad", { id: "m-1" }))
        const unavailable = yield* Effect.provide(attempt, failing("Unavailable"))
        const uncertain = yield* Effect.provide(attempt, failing("Uncertain", "Uncertain"))
        const refused = yield* Effect.provide(attempt, failing("Refused"))
        assert.deepInclude(unavailable, { _tag: "Unavailable", channel: "texts", id: "m-1" })
        assert.deepInclude(uncertain, { _tag: "PublishUncertain", channel: "texts", id: "m-1" })
        assert.deepInclude(refused, { _tag: "BrokerError", reason: "Refused", isRetryable: false })
      })
    )
  })

  describe("Publisher.publishAll", () => {
    test(
      "stores in order, with receipts in the same order",
      Effect.gen(function*() {
        const payloads = Array.from({ length: 1_200 }, (_, i) => String(i))
        const { seen } = yield* listen(Text, { prefetch: 200 })
        const receipts = yield* Publisher.publishAll(Text, payloads)
        const messages = yield* soon(Queue.takeN(seen, payloads.length))
        assert.deepStrictEqual(messages.map(({ payload }) => payload), payloads)
        assert.deepStrictEqual(messages.map(({ id }) => id), receipts.map(({ id }) => id))
        assert.deepStrictEqual(new Set(receipts.map(({ _tag }) => _tag)), new Set(["Published"]))
      })
    )

    test(
      "takes options for each payload",
      Effect.gen(function*() {
        const { seen } = yield* listen(Notice)
        const receipts = yield* Publisher.publishAll(Notice, ["a", "b", "a"], (payload, index) => ({
          id: `id-${payload}`,
          headers: { index: String(index) },
          params: { userId: `u-${payload}` }
        }))
        const messages = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(receipts.map(({ _tag, id }) => [_tag, id]), [
          ["Published", "id-a"],
          ["Published", "id-b"],
          ["Duplicate", "id-a"]
        ])
        assert.strictEqual(receipts[2]!.position, receipts[0]!.position)
        assert.deepStrictEqual(messages.map(({ headers, params }) => [params.userId, headers["index"]]), [
          ["u-a", "0"],
          ["u-b", "1"]
        ])
      })
    )

    test(
      "does nothing with nothing",
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Publisher.publishAll(Text, []), [])
      })
    )

    test(
      "sends nothing when one payload is refused",
      Effect.gen(function*() {
        yield* listen(Amount)
        const error = yield* Effect.flip(Publisher.publishAll(Amount, [1, 1.5, 2]))
        assert.strictEqual(error._tag, "InvalidPayload")
        assert.strictEqual((yield* leftover(Amount)).unread, 0)
      })
    )

    test(
      "tells for each message what became of it when some were not stored",
      Effect.gen(function*() {
        const ids = (_: string, index: number) => ({ id: `m-${index}` })
        const error = yield* Effect.flip(Publisher.publishAll(Text, ["a", "bad", "b", "bad"], ids)).pipe(
          Effect.provide(failing("Unavailable"))
        )
        const { seen } = yield* listen(Text)
        const messages = yield* soon(Queue.takeN(seen, 2))
        assert(error._tag === "PublishIncomplete")
        assert.deepStrictEqual(stored(error), ["m-0", "Unavailable", "m-2", "Unavailable"])
        assert.include(error.message, "2 of 4 messages")
        assert.deepStrictEqual(messages.map(({ payload }) => payload), ["a", "b"])
      })
    )
  })
}
