/** Every message that a publish accepts is handled by every group, and no message that it refuses: identity is not deduplication. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Queue, Schema } from "effect"
import { Channel, type Message, Publisher, Subscription, Transaction } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("accepted.texts", { payload: Schema.String })
const Keyed = Channel.make("accepted.keyed", { payload: Schema.String, idempotencyKey: (text) => text.split(" ")[0]! })
const Source = Channel.make("accepted.source", { payload: Schema.String })

const window = 250
const lease = 100

export const acceptedSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  const processed = (subscription: Subscription.Subscription, count: number) =>
    until(backend, Effect.map(subscription.stats, (stats) => stats.processed >= count))

  describe("Publisher.publish: accepted is handled", () => {
    /** Ways to publish a key repeatedly; each returns the receipts. */
    const ways: Record<
      string,
      (key: string, text: string) => Effect.Effect<
        Publisher.Receipt | undefined,
        unknown,
        Publisher.Publisher
      >
    > = {
      id: (key, text) => Publisher.publish(Text, text, { id: key, deduplicate: { window } }),
      throttle: (key, text) => Publisher.publish(Text, text, { throttle: { key, window } }),
      "throttle with an id": (key, text) => Publisher.publish(Text, text, { id: "same", throttle: { key, window } }),
      idempotencyKey: (key, text) => Publisher.publish(Keyed, `${key} ${text}`, { deduplicate: { window } }),
      scheduled: (key, text) => Publisher.publish(Text, text, { id: key, deduplicate: { window }, delay: 1 }),
      batch: (key, text) =>
        Effect.map(
          Publisher.publishAll(Text, [text, `${text} twice`], { id: key, deduplicate: { window } }),
          ([receipt, second]) => {
            assert.strictEqual(second?._tag, "Duplicate")
            return receipt
          }
        )
    }

    test(
      "at any interval, for exactlyOnce and transactional groups, with any time to remember",
      Effect.gen(function*() {
        const seen: Record<string, Array<string>> = { once: [], short: [], transactional: [], plain: [] }
        const both = Channel.union([Text, Keyed])
        const subscribe = (
          group: string,
          options: Partial<Subscription.StreamOptions> & {
            readonly exactlyOnce?: boolean | Subscription.ExactlyOnce<typeof both>
            readonly transactional?: boolean
          }
        ) =>
          Subscription.make(both, {
            group,
            lease,
            concurrency: 8,
            ...options,
            handler: ({ payload }: Message.Message<typeof both>) => Effect.sync(() => seen[group]!.push(payload))
          })
        yield* subscribe("once", { exactlyOnce: true })
        yield* subscribe("short", { exactlyOnce: { ttl: lease } })
        yield* subscribe("transactional", { transactional: true })
        yield* subscribe("plain", {})

        const events = Object.keys(ways).flatMap((way) =>
          [0.9, 1.1, 1.9, 2.1, 5].flatMap((factor) =>
            Array.from({ length: factor > 3 ? 3 : 4 }, (_, i) => ({ way, factor, i, at: i * factor * window }))
          )
        ).toSorted((a, b) => a.at - b.at)
        const accepted: Array<string> = []
        let refused = 0
        const began = yield* Clock.currentTimeMillis
        for (const { at, factor, i, way } of events) {
          const wait = began + at - (yield* Clock.currentTimeMillis)
          if (wait > 0) yield* backend.advance(wait)
          const key = `${way}/${factor}`
          const text = `${key}/${i}`
          const receipt = yield* ways[way]!(key, text)
          if (receipt?._tag === "Duplicate") refused++
          else accepted.push(way === "idempotencyKey" ? `${key} ${text}` : text)
        }
        assert.isAbove(refused, 0)
        // The last message of a key is not refused because of one that has expired long ago.
        for (const way of Object.keys(ways)) {
          assert.strictEqual(accepted.filter((text) => text.startsWith(`${way}/5`)).length, 3, way)
        }
        for (const group of Object.keys(seen)) {
          yield* until(backend, Effect.sync(() => seen[group]!.length >= accepted.length))
          assert.deepStrictEqual(seen[group]!.toSorted(), accepted.toSorted(), group)
        }
        yield* until(
          backend,
          Effect.map(leftover(both), ({ pending, unread }) => pending + unread === 0)
        )
        assert.deepStrictEqual(yield* leftover(both), nothingLeft)
      })
    )

    test(
      "a message published again with the id of its receipt, and one that a transaction publishes again",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { exactlyOnce: true })
        const { id } = yield* Publisher.publish(Text, "first")
        assert.strictEqual((yield* Publisher.publish(Text, "second", { id }))._tag, "Published")
        yield* processed(subscription, 2)
        yield* listen(Source, {
          transactional: true,
          handler: ({ payload }) => Transaction.publish(Text, payload, { id: "t", deduplicate: { window: 1 } })
        })
        yield* Publisher.publish(Source, "third")
        yield* processed(subscription, 3)
        yield* backend.advance(20)
        yield* Publisher.publish(Source, "fourth")
        yield* processed(subscription, 4)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ payload }) => payload), [
          "first",
          "second",
          "third",
          "fourth"
        ])
        assert.deepInclude(yield* subscription.stats, { processed: 4, duplicates: 0 })
      })
    )
  })

  describe("Subscription.make: exactlyOnce with a key of one's own", () => {
    const ttl = 300
    const own = { lease, exactlyOnce: { key: () => "k", ttl } }

    test(
      "counts for its ttl and not longer, also in a group that has nothing to do meanwhile",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, own)
        yield* Publisher.publish(Text, "1")
        yield* processed(subscription, 1)
        yield* backend.advance(ttl / 3)
        yield* Publisher.publish(Text, "2")
        yield* until(backend, Effect.map(subscription.stats, ({ duplicates }) => duplicates === 1))
        for (const [i, wait] of [ttl * 1.2, ttl * 2.2, ttl * 5].entries()) {
          yield* backend.advance(wait)
          yield* Publisher.publish(Text, `after ${wait}`)
          yield* processed(subscription, i + 2)
        }
        assert.strictEqual((yield* Queue.clear(seen)).length, 4)
      })
    )

    test(
      "members that remember for different times do not shorten each other's",
      Effect.gen(function*() {
        const long = yield* listen(Text, { group: "g", lease, exactlyOnce: { key: () => "k", ttl: "1 hour" } })
        yield* Publisher.publish(Text, "1")
        yield* processed(long.subscription, 1)
        yield* long.subscription.drain
        const short = yield* listen(Text, {
          group: "g",
          lease,
          exactlyOnce: { key: ({ payload }) => payload, ttl: lease }
        })
        for (const text of ["a", "b", "c", "d"]) {
          yield* backend.advance(lease * 1.5)
          yield* Publisher.publish(Text, text)
        }
        yield* processed(short.subscription, 4)
        yield* short.subscription.drain
        const again = yield* listen(Text, { group: "g", lease, exactlyOnce: { key: () => "k", ttl: "1 hour" } })
        yield* Publisher.publish(Text, "2")
        yield* until(backend, Effect.map(again.subscription.stats, ({ duplicates }) => duplicates === 1))
        assert.strictEqual(yield* Queue.size(again.seen), 0)
      })
    )

    for (const transactional of [false, true]) {
      test(
        `a message that expired and is dropped has not done its key${
          transactional ? ", in a transaction neither" : ""
        }`,
        Effect.gen(function*() {
          const { seen, subscription } = yield* listen(Text, {
            lease,
            transactional,
            expired: "drop",
            exactlyOnce: { key: () => "k" }
          })
          yield* subscription.pause
          yield* Publisher.publish(Text, "late", { expiresIn: 20 })
          yield* backend.advance(60)
          yield* subscription.resume
          yield* until(backend, Effect.map(subscription.stats, ({ expired, held }) => expired === 1 && held === 0))
          yield* Publisher.publish(Text, "in time")
          assert.strictEqual((yield* soon(Queue.take(seen))).payload, "in time")
          yield* processed(subscription, 1)
          assert.deepInclude(yield* subscription.stats, { processed: 1, duplicates: 0, expired: 1 })
          yield* until(backend, Effect.map(leftover(Text), ({ pending, unread }) => pending + unread === 0))
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        })
      )
    }

    test(
      "what becomes a dead letter has not done its key: expired, undecodable, given up",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          ...own,
          exactlyOnce: { key: () => "k" },
          maxRetries: 0,
          handler: (message) => message.payload === "term" ? message.term("no") : Effect.void
        })
        yield* subscription.pause
        yield* Publisher.publish(Text, "late", { expiresIn: 20 })
        yield* backend.advance(60)
        yield* subscription.resume
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        yield* Publisher.publish(Text, "term")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 2))
        yield* Publisher.publish(Text, "good")
        yield* processed(subscription, 1)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ payload }) => payload), ["term", "good"])
      })
    )
  })
}
