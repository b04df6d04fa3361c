/** Deduplication of publishes: ids, throttle and debounce. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Transaction } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("windows.texts", { payload: Schema.String })
const Keyed = Channel.make("windows.keyed", {
  payload: Schema.String,
  idempotencyKey: (payload) => payload.toLowerCase()
})

export const windowsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Publisher.publish: deduplicate", () => {
    test(
      "keeps an id out for as long as its window says, at once, in a batch and scheduled",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { concurrency: 4 })
        const options = { id: "a", deduplicate: { window: 300 } }
        const first = yield* Publisher.publish(Text, "1", options)
        assert.strictEqual(first._tag, "Published")
        const others = [
          yield* Publisher.publish(Text, "2", options),
          ...(yield* Publisher.publishAll(Text, ["3", "4"], options)),
          yield* Publisher.publish(Text, "5", { ...options, delay: 10 })
        ]
        for (const other of others) {
          assert.deepInclude(other, { _tag: "Duplicate", id: "a", position: first.position })
        }
        yield* backend.advance(350)
        assert.strictEqual((yield* Publisher.publish(Text, "6", options))._tag, "Published")
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload), ["1", "6"])
      })
    )

    test(
      "takes the id from the channel, where it makes one",
      Effect.gen(function*() {
        const receipts = yield* Publisher.publishAll(Keyed, ["a", "b", "A"])
        assert.deepStrictEqual(receipts.map(({ _tag, id }) => [_tag, id]), [
          ["Published", "a"],
          ["Published", "b"],
          ["Duplicate", "a"]
        ])
        assert.deepInclude(yield* Publisher.publish(Keyed, "a", { id: "other" }), { _tag: "Published", id: "other" })
        assert.strictEqual((yield* Publisher.publish(Keyed, "", { id: "other" }))._tag, "Duplicate")
        assert.strictEqual((yield* Effect.flip(Publisher.publish(Keyed, "")))._tag, "InvalidPublishOptions")
      })
    )

    test(
      "refuses what cannot be: windows that are too long, options that contradict each other",
      Effect.gen(function*() {
        const key = "k"
        const attempts: ReadonlyArray<Publisher.PublishOptions> = [
          { id: "a", deduplicate: { window: "8 days" } },
          { id: "a", deduplicate: { window: 0 } },
          { deduplicate: { window: "1 minute" } },
          { throttle: { key, window: "8 days" } },
          { throttle: { key: "", window: "1 minute" } },
          { debounce: { key, delay: 0 } },
          { debounce: { key, delay: "1 minute" }, id: "a" },
          { debounce: { key, delay: "1 minute" }, delay: "1 minute" },
          { debounce: { key, delay: "1 minute" }, throttle: { key, window: "1 minute" } },
          { id: "debounce:x" }
        ]
        for (const options of attempts) {
          const refused = yield* Effect.flip(Publisher.publish(Text, "x", options))
          assert.strictEqual(refused._tag, "InvalidPublishOptions", JSON.stringify(options))
        }
      })
    )
  })

  test(
    "the longest window is the publisher's option",
    Effect.gen(function*() {
      const options = (window: "1 minute" | "2 minutes") => ({ id: "a", deduplicate: { window } })
      assert.strictEqual((yield* Publisher.publish(Text, "x", options("1 minute")))._tag, "Published")
      assert.include((yield* Effect.flip(Publisher.publish(Text, "x", options("2 minutes")))).message, "maxWindow")
    }),
    { maxWindow: "1 minute" }
  )

  describe("Publisher.publish: throttle", () => {
    test(
      "lets the first of a key through, and names it to the others; ids are something else",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const throttle = { key: "k", window: 300 }
        const first = yield* Publisher.publish(Text, "1", { throttle })
        assert.deepInclude(yield* Publisher.publish(Text, "2", { throttle }), {
          _tag: "Duplicate",
          id: first.id,
          position: first.position
        })
        assert.deepInclude(yield* Publisher.publish(Text, "3", { throttle, id: "mine" }), {
          _tag: "Duplicate",
          id: first.id
        })
        for (const options of [{ id: "k" }, { throttle: { key: "l", window: 300 } }]) {
          assert.strictEqual((yield* Publisher.publish(Text, "other", options))._tag, "Published")
        }
        yield* backend.advance(350)
        assert.strictEqual((yield* Publisher.publish(Text, "4", { throttle }))._tag, "Published")
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 4))).map(({ payload }) => payload), [
          "1",
          "other",
          "other",
          "4"
        ])
      })
    )
  })

  describe("Publisher.publish: debounce", () => {
    test(
      "delivers the last of a key, when none has come for so long, each time anew",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { exactlyOnce: true })
        const debounce = { key: "k", delay: 200 }
        for (const burst of ["a", "b"]) {
          // Read before the publish: the delay begins when the backend stores the message, not when the answer arrives.
          let last = 0
          for (let i = 1; i <= 3; i++) {
            last = yield* Clock.currentTimeMillis
            const receipt = yield* Publisher.publish(Text, `${burst}${i}`, { debounce })
            assert.strictEqual(receipt._tag, "Scheduled")
            if (i < 3) yield* backend.advance(60)
          }
          const message = yield* soon(Queue.take(seen))
          assert.strictEqual(message.payload, `${burst}3`)
          assert.isAtLeast((yield* Clock.currentTimeMillis) - last, 199)
        }
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 2))
        assert.deepInclude(yield* subscription.stats, { processed: 2, duplicates: 0 })
        assert.strictEqual(yield* Queue.size(seen), 0)
      })
    )
  })

  describe("Transaction.publish", () => {
    test(
      "schedules, throttles and debounces like publish",
      Effect.gen(function*() {
        const Out = Channel.make("windows.out", { payload: Schema.String })
        const out = yield* listen(Out)
        const { subscription } = yield* listen(Text, {
          transactional: true,
          handler: Effect.fnUntraced(function*({ payload }) {
            yield* Transaction.publish(Out, `${payload} later`, { delay: 300, headers: { from: payload } })
            yield* Transaction.publish(Out, `${payload} throttled`, { throttle: { key: "k", window: "1 hour" } })
            yield* Transaction.publish(Out, `${payload} debounced`, { debounce: { key: "k", delay: 200 } })
            yield* Transaction.publish(Out, `${payload} id`, { id: "same", delay: 100 })
          })
        })
        const began = yield* Clock.currentTimeMillis
        yield* Publisher.publishAll(Text, ["1", "2"])
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 2))
        const messages = yield* soon(Queue.takeN(out.seen, 5))
        assert.isAtLeast((yield* Clock.currentTimeMillis) - began, 299)
        assert.deepStrictEqual(messages.map(({ payload }) => payload), [
          "1 throttled",
          "1 id",
          "2 debounced",
          "1 later",
          "2 later"
        ])
        assert.strictEqual(messages[3]?.headers["from"], "1")
        assert.strictEqual((yield* Publisher.publish(Out, "x", { id: "same" }))._tag, "Duplicate")
      })
    )
  })
}
