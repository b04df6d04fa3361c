/** Scheduled messages, on every backend: `delay` and `at`, cancelling and rescheduling, expiry. */
import { assert, describe } from "@effect/vitest"
import { DateTime, Deferred, Effect, Queue, Schema } from "effect"
import { Broker, Channel, DeadLetters, Publisher, Rotif, Scheduler, Transaction } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("texts.other", { payload: Schema.String })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })

const millis = DateTime.toEpochMillis

/** Takes the payloads of the next messages, in order of arrival. */
const payloads = (seen: Queue.Dequeue<{ readonly payload: string }>, count: number) =>
  Effect.map(Queue.takeN(seen, count), (messages) => messages.map(({ payload }) => payload))

export const schedulingSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { advance, soon } = backend

  describe("Publisher.publish: delay and at", () => {
    test(
      "delivers when it is due, and not earlier",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const receipt = yield* Publisher.publish(Text, "x", { delay: "200 millis" })
        assert(receipt._tag === "Scheduled")
        assert.strictEqual(yield* Scheduler.count(Text), 1)
        const message = yield* soon(Queue.take(seen))
        assert.strictEqual(message.id, receipt.id)
        assert.deepStrictEqual([message.attempt, message.deliveryCount], [1, 1])
        assert.isAtLeast(millis(message.publishedAt), millis(receipt.dueAt))
        assert.strictEqual(yield* Scheduler.count(Text), 0)
        assert.strictEqual(yield* Scheduler.count(), 0)
      })
    )

    test(
      "delivers none early, and all in the order of their times",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { prefetch: 50 })
        const delays = Array.from({ length: 100 }, (_, i) => 20 + (i * 37) % 100 * 4)
        const receipts = yield* Publisher.publishAll(Text, delays.map(String), (text) => ({ delay: Number(text) }))
        const messages = yield* soon(Queue.takeN(seen, delays.length))
        const dueAt = new Map(
          receipts.map((receipt) => [receipt.id, receipt._tag === "Scheduled" ? millis(receipt.dueAt) : NaN])
        )
        for (const message of messages) assert.isAtLeast(millis(message.publishedAt), dueAt.get(message.id)!)
        assert.deepStrictEqual(messages.map(({ payload }) => Number(payload)), [...delays].sort((a, b) => a - b))
      })
    )

    test(
      "keeps the order of publishing at the same time",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const first = yield* Publisher.publish(Text, "first", { delay: 200 })
        assert(first._tag === "Scheduled")
        const others = Array.from({ length: 40 }, (_, i) => String(i))
        yield* Publisher.publishAll(Text, others, { at: first.dueAt })
        assert.deepStrictEqual(yield* soon(payloads(seen, 41)), ["first", ...others])
      })
    )

    test(
      "takes a past time as now",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* advance("20 millis")
        const tags = yield* Effect.forEach(
          [{ at: 1 }, { at: -5 }, { at: "1969-12-31T00:00:00Z" }, { delay: 0 }, { delay: "0 seconds" as const }],
          (options) => Effect.map(Publisher.publish(Text, "x", options), ({ _tag }) => _tag)
        )
        assert.deepStrictEqual(tags, Array(5).fill("Published"))
        yield* soon(Queue.takeN(seen, 5))
      })
    )

    test(
      "refuses times that are none",
      Effect.gen(function*() {
        const errors = yield* Effect.forEach([
          { delay: Number.NaN },
          { delay: -1 },
          { delay: "-1 second" as const },
          { delay: Number.POSITIVE_INFINITY },
          { delay: "4000000 weeks" as const },
          { delay: "soon" as "1 second" },
          { at: Number.NaN },
          { at: "tomorrow" },
          { at: "+010000-01-01T00:00:00.000Z" },
          { delay: 1, at: 1 },
          { expiresIn: 0 },
          { expiresIn: -1 },
          { expiresIn: Number.NaN },
          { expiresIn: Number.POSITIVE_INFINITY }
        ], (options) => Effect.flip(Publisher.publish(Text, "x", options)))
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(errors.length).fill("InvalidPublishOptions"))
        yield* Publisher.publish(Text, "x", { at: "9999-12-31T23:59:59.999Z" })
        assert.strictEqual(yield* Scheduler.count(), 1)
      })
    )

    test(
      "stores an id once, also while it waits",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const first = yield* Publisher.publish(Text, "first", { id: "a", delay: 200 })
        const again = yield* Publisher.publish(Text, "again", { id: "a", delay: 100 })
        const now = yield* Publisher.publish(Text, "now", { id: "a" })
        const other = yield* Publisher.publish(Other, "other", { id: "a", delay: 100 })
        assert.deepStrictEqual([first, again, now, other].map(({ _tag }) => _tag), [
          "Scheduled",
          "Duplicate",
          "Duplicate",
          "Scheduled"
        ])
        assert.deepStrictEqual(again, { _tag: "Duplicate", id: "a", channel: "texts", position: undefined })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "first")
        // It is remembered from its due time on.
        assert.strictEqual((yield* Publisher.publish(Text, "later", { id: "a", delay: 10 }))._tag, "Duplicate")
      })
    )

    test(
      "publishAll schedules and publishes, with receipts in order",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const receipts = yield* Publisher.publishAll(
          Text,
          ["now", "200", "100", "now"],
          (text) => text === "now" ? {} : { delay: Number(text) }
        )
        assert.deepStrictEqual(receipts.map(({ _tag }) => _tag), ["Published", "Scheduled", "Scheduled", "Published"])
        assert.deepStrictEqual(yield* soon(payloads(seen, 4)), ["now", "now", "100", "200"])
      })
    )

    test(
      "keeps headers and params",
      Effect.gen(function*() {
        const { seen } = yield* listen(Notice)
        yield* Publisher.publish(Notice, "two\nlines", {
          params: { userId: "4\n2" },
          headers: { trace: "a\nb" },
          delay: 50
        })
        const message = yield* soon(Queue.take(seen))
        assert.strictEqual(message.payload, "two\nlines")
        assert.deepStrictEqual([{ ...message.headers }, { ...message.params }], [{ trace: "a\nb" }, { userId: "4\n2" }])
      })
    )

    test(
      "delayed: false leaves the waiting ones to other processes",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "x", { delay: 50 })
        yield* advance("300 millis")
        assert.deepStrictEqual([yield* Scheduler.count(Text), yield* Queue.size(seen)], [1, 0])
        yield* soon(Queue.take(seen)).pipe(Effect.provide(Rotif.layerBroker()))
      }),
      { delayed: false }
    )

    test(
      "delayed: false does not stop retries, also while scheduled messages are due that nobody promotes",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          retry: () => 30,
          handler: ({ attempt, payload }) => attempt < 3 && payload !== "x" ? Effect.fail(new Error("no")) : Effect.void
        })
        yield* Publisher.publish(Text, "x", { delay: 1 })
        yield* Publisher.publish(Text, "before")
        const first = yield* soon(Queue.takeN(seen, 3))
        // By now the scheduled one has been due for longer.
        yield* advance("1500 millis")
        yield* Publisher.publish(Text, "after")
        const second = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(
          [...first, ...second].map(({ attempt, payload }) => [payload, attempt]),
          ["before", "after"].flatMap((payload) => [1, 2, 3].map((attempt) => [payload, attempt]))
        )
        assert.strictEqual(yield* Scheduler.count(Text), 1)
        yield* soon(subscription.drain)
      }),
      { delayed: false }
    )

    test(
      "survives the layer that scheduled it",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x", { delay: 100 }).pipe(Effect.provide(Rotif.layerBroker({ delayed: false })))
        yield* soon(
          Effect.gen(function*() {
            const { seen } = yield* listen(Text)
            assert.strictEqual((yield* Queue.take(seen)).payload, "x")
          }).pipe(Effect.scoped, Effect.provide(Rotif.layerBroker()))
        )
      }),
      { delayed: false }
    )

    test(
      "replaces what waits under the same id, where that is asked for",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const { seen } = yield* listen(Text)
        const debounced = (payload: string, delayMillis: number) =>
          broker.append([{
            id: "d",
            channel: "texts",
            payload: JSON.stringify(payload),
            due: { delayMillis },
            replace: true
          }])
        yield* debounced("one", 10_000)
        yield* debounced("two", 20_000)
        const [last] = yield* debounced("three", 100)
        assert.strictEqual(last?._tag, "Scheduled")
        assert.strictEqual(yield* Scheduler.count(Text), 1)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "three")
        assert.strictEqual(yield* Scheduler.count(Text), 0)
      })
    )
  })

  describe("Scheduler.cancel, reschedule, deliverNow", () => {
    test(
      "cancel: it never comes, and its id is free again",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "cancelled", { id: "a", delay: 100 })
        assert.isFalse(yield* Scheduler.cancel(Other, "a"))
        assert.isTrue(yield* Scheduler.cancel(Text, "a"))
        assert.isFalse(yield* Scheduler.cancel(Text, "a"))
        assert.isFalse(yield* Scheduler.cancel(Text, "unknown"))
        const again = yield* Publisher.publish(Text, "again", { id: "a", delay: 150 })
        assert.strictEqual(again._tag, "Scheduled")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "again")
        assert.isFalse(yield* Scheduler.cancel(Text, "a"))
        assert.strictEqual((yield* leftover(Text)).waiting, 0)
      })
    )

    test(
      "reschedule: earlier, later, or now",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        const ids = ["earlier", "later", "now", "at"]
        yield* Publisher.publishAll(Text, ids, (id) => ({ id, delay: id === "later" ? 60 : "1 hour" }))
        assert.isTrue(yield* Scheduler.reschedule(Text, "later", { delay: 400 }))
        assert.isTrue(yield* Scheduler.reschedule(Text, "earlier", { delay: 200 }))
        assert.isTrue(yield* Scheduler.reschedule(Text, "now", { at: 0 }))
        const { messages } = yield* Scheduler.list({ channel: Text })
        const later = messages.find(({ id }) => id === "later")!
        assert.isTrue(yield* Scheduler.reschedule(Text, "at", { at: DateTime.addDuration(later.dueAt, 50) }))
        assert.deepStrictEqual(yield* soon(payloads(seen, 4)), ["now", "earlier", "later", "at"])
        assert.isFalse(yield* Scheduler.reschedule(Text, "now", { delay: 1 }))
      })
    )

    test(
      "reschedule: comes at its new time, though nobody was to look before the old one",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "later", { id: "later", delay: "1 hour" })
        yield* Publisher.publish(Text, "first", { delay: 20 })
        assert.deepStrictEqual(yield* soon(payloads(seen, 1)), ["first"])
        assert.isTrue(yield* Scheduler.reschedule(Text, "later", { delay: 200 }))
        assert.deepStrictEqual(yield* soon(payloads(seen, 1)), ["later"])
      })
    )

    test(
      "reschedule: its id is remembered as long as before, from the new time on",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const publish = (delayMillis?: number) =>
          Effect.map(
            broker.append([{
              id: "a",
              channel: "texts",
              payload: "\"x\"",
              window: { key: "ia", millis: 100 },
              due: delayMillis === undefined ? undefined : { delayMillis }
            }]),
            ([appended]) => appended!._tag
          )
        assert.strictEqual(yield* publish(50), "Scheduled")
        assert.isTrue(
          yield* broker.scheduled.reschedule({ channel: "texts", id: "a" }, { delayMillis: 400 })
        )
        yield* advance("250 millis")
        assert.strictEqual(yield* publish(), "Duplicate")
        yield* advance("300 millis")
        assert.strictEqual(yield* publish(), "Stored")
      })
    )

    test(
      "cancel: closes the window that the message has opened, with any key, and no other",
      Effect.gen(function*() {
        const throttle = { key: "k", window: "1 day" } as const
        yield* Publisher.publish(Text, "a", { id: "a", throttle, delay: "1 hour" })
        assert.strictEqual((yield* Publisher.publish(Text, "b", { id: "a" }))._tag, "Published")
        assert.strictEqual((yield* Publisher.publish(Text, "c", { throttle }))._tag, "Duplicate")
        assert.isTrue(yield* Scheduler.cancel(Text, "a"))
        assert.strictEqual((yield* Publisher.publish(Text, "d", { throttle }))._tag, "Published")
        assert.strictEqual((yield* Publisher.publish(Text, "e", { id: "a" }))._tag, "Duplicate")
      })
    )

    test(
      "cancel: knows the window of a message that a transaction has scheduled",
      Effect.gen(function*() {
        const throttle = { key: "k", window: "1 day" } as const
        const Out = Channel.make("scheduling.out", { payload: Schema.String })
        yield* listen(Text, {
          transactional: true,
          handler: () => Transaction.publish(Out, "a", { id: "a", throttle, delay: "1 hour" })
        })
        yield* Publisher.publish(Text, "go")
        yield* until(backend, Effect.map(Scheduler.count(Out), (waiting) => waiting === 1))
        assert.strictEqual((yield* Publisher.publish(Out, "b", { throttle }))._tag, "Duplicate")
        assert.isTrue(yield* Scheduler.cancel(Out, "a"))
        assert.strictEqual((yield* Publisher.publish(Out, "c", { throttle }))._tag, "Published")
      })
    )

    test(
      "reschedule and deliverNow: the window that the message has opened lasts its span from the new time on, and no longer",
      Effect.gen(function*() {
        const throttle = { key: "k", window: 100 } as const
        const deduplicate = { window: 100 } as const
        yield* Publisher.publish(Text, "a", { id: "a", throttle, delay: 50 })
        yield* Publisher.publish(Text, "b", { id: "b", deduplicate, delay: "1 hour" })
        assert.isTrue(yield* Scheduler.reschedule(Text, "a", { delay: 400 }))
        assert.isTrue(yield* Scheduler.deliverNow(Text, "b"))
        assert.strictEqual((yield* Publisher.publish(Text, "x", { id: "b" }))._tag, "Duplicate")
        yield* advance("250 millis")
        assert.strictEqual((yield* Publisher.publish(Text, "x", { throttle }))._tag, "Duplicate")
        assert.strictEqual((yield* Publisher.publish(Text, "x", { id: "b" }))._tag, "Published")
        yield* advance("300 millis")
        assert.strictEqual((yield* Publisher.publish(Text, "x", { throttle }))._tag, "Published")
      })
    )

    test(
      "deliverNow: at once, as it was",
      Effect.gen(function*() {
        const { seen } = yield* listen(Notice)
        yield* Publisher.publish(Notice, "x", {
          id: "a",
          delay: "1 hour",
          params: { userId: "1" },
          headers: { h: "1" }
        })
        assert.isTrue(yield* Scheduler.deliverNow(Notice, "a"))
        assert.isFalse(yield* Scheduler.deliverNow(Notice, "a"))
        const message = yield* soon(Queue.take(seen))
        assert.deepStrictEqual([message.id, { ...message.headers }, { ...message.params }], ["a", { h: "1" }, {
          userId: "1"
        }])
        assert.strictEqual(yield* Scheduler.count(), 0)
      })
    )

    test(
      "reschedule refuses times that are none",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x", { id: "a", delay: "1 hour" })
        const errors = yield* Effect.forEach(
          [{ delay: -1 }, { delay: Number.NaN }, { at: "never" }, { at: 253_402_300_800_000 }, {} as { delay: 1 }],
          (when) => Effect.flip(Scheduler.reschedule(Text, "a", when))
        )
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(errors.length).fill("InvalidSchedule"))
        assert.strictEqual(yield* Scheduler.count(Text), 1)
      })
    )

    test(
      "tell the truth, however close they are to the due time",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { concurrency: 20 })
        const ids = Array.from({ length: 120 }, (_, i) => `m${i}`)
        yield* Publisher.publishAll(Text, ids, (id, i) => ({ id, delay: 20 + i }))
        const cancelled = yield* soon(Effect.forEach(ids, (id, i) =>
          Effect.sleep(20 + i).pipe(
            Effect.andThen(Effect.all([
              Scheduler.cancel(Text, id),
              i % 2 === 0 ? Scheduler.deliverNow(Text, id) : Scheduler.reschedule(Text, id, { delay: 5 }),
              Scheduler.cancel(Text, id)
            ], { concurrency: 3 })),
            Effect.map(([first, , second]) => first || second)
          ), { concurrency: "unbounded" }))
        const expected = ids.filter((_, i) => !cancelled[i])
        yield* Publisher.publish(Text, "end", { delay: 200 })
        const came: Array<string> = []
        while (came.at(-1) !== "end") came.push((yield* soon(Queue.take(seen))).payload)
        assert.sameMembers(came, [...expected, "end"])
        assert.strictEqual((yield* leftover(Text)).waiting, 0)
      })
    )
  })

  describe("Scheduler.list and count", () => {
    test(
      "lists all pages in the order of the times, of one channel or of all",
      Effect.gen(function*() {
        const hours = Array.from({ length: 30 }, (_, i) => (i * 7) % 30 + 1)
        yield* Publisher.publishAll(
          Text,
          hours.map(String),
          (text) => ({ id: `t${text}`, delay: `${Number(text)} hours` })
        )
        const [some] = (yield* Scheduler.list({ limit: 1 })).messages
        yield* Publisher.publishAll(Other, Array.from({ length: 25 }, (_, i) => String(i)), { at: some!.dueAt })
        yield* Publisher.publish(Notice, "x", { delay: "90 minutes", params: { userId: "1" } })
        const pages = Effect.fnUntraced(function*(options: Scheduler.ListOptions) {
          const all: Array<Scheduler.Scheduled> = []
          let page: Scheduler.Page = yield* Scheduler.list(options)
          all.push(...page.messages)
          while (page.cursor !== undefined) {
            assert.isAtMost(page.messages.length, options.limit ?? 100)
            page = yield* Scheduler.list({ ...options, cursor: page.cursor })
            all.push(...page.messages)
          }
          return all
        })
        const texts = yield* pages({ channel: Text, limit: 7 })
        assert.deepStrictEqual(
          texts.map(({ payload }) => Number(JSON.parse(payload))),
          Array.from({ length: 30 }, (_, i) => i + 1)
        )
        const all = yield* pages({ limit: 10 })
        assert.lengthOf(all, 56)
        assert.lengthOf(new Set(all.map(({ channel, id }) => `${channel} ${id}`)), 56)
        const times = all.map(({ dueAt }) => millis(dueAt))
        assert.deepStrictEqual(times, [...times].sort((a, b) => a - b))
        assert.deepStrictEqual(yield* pages({}), all)
        assert.deepStrictEqual(
          [
            yield* Scheduler.count(Text),
            yield* Scheduler.count(Other),
            yield* Scheduler.count(Notice),
            yield* Scheduler.count()
          ],
          [30, 25, 1, 56]
        )
      }),
      { delayed: false }
    )

    test(
      "goes on where it was when what it ended with is gone",
      Effect.gen(function*() {
        const texts = Array.from({ length: 9 }, (_, i) => String(i))
        yield* Publisher.publishAll(Text, texts, (id) => ({ id, at: "2999-01-01T00:00:00Z" }))
        const first = yield* Scheduler.list({ limit: 4 })
        for (const { id } of first.messages) yield* Scheduler.cancel(Text, id)
        const second = yield* Scheduler.list({ limit: 100, cursor: first.cursor! })
        assert.deepStrictEqual([...first.messages, ...second.messages].map(({ id }) => id), texts)
        assert.isUndefined(second.cursor)
      })
    )

    test(
      "does not list what waits for a retry",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { retryDelay: "1 hour", handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.strictEqual((yield* leftover(Text)).waiting, 1)
        assert.deepStrictEqual(yield* Scheduler.list(), { messages: [], cursor: undefined })
        assert.strictEqual(yield* Scheduler.count(), 0)
      })
    )

    test(
      "refuses limits and cursors that cannot be used",
      Effect.gen(function*() {
        const errors = yield* Effect.forEach(
          [{ limit: 0 }, { limit: 1001 }, { limit: 1.5 }, { cursor: "" }, { cursor: "x" }, { cursor: "1\na" }],
          (options) => Effect.flip(Scheduler.list(options))
        )
        assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(errors.length).fill("InvalidSchedule"))
      })
    )
  })

  describe("Publisher.publish: expiresIn", () => {
    test(
      "delivers messages in time, and buries the others",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "old", { id: "old", expiresIn: 40, headers: { h: "1" } })
        yield* Publisher.publish(Text, "young", { expiresIn: "1 hour" })
        yield* advance("100 millis")
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "young")
        yield* soon(subscription.drain)
        const [letter, ...more] = yield* letters
        assert.deepStrictEqual(more, [])
        assert.deepInclude(letter, { id: "old", group: "g", payload: "\"old\"", attempt: 1 })
        assert.strictEqual(letter?.failure.reason, "expired")
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepInclude(yield* subscription.stats, { processed: 1, expired: 1, dead: 1, failed: 0 })
        // A requeued message does not expire.
        const again = yield* listen(Text, { group: "g" })
        const { letters: dead } = yield* DeadLetters.list()
        assert.isTrue(yield* DeadLetters.requeue(dead[0]!.letterId))
        assert.strictEqual((yield* soon(Queue.take(again.seen))).payload, "old")
      })
    )

    test(
      "drops it where that is wanted",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "old", { expiresIn: 40 })
        yield* advance("100 millis")
        const { seen, subscription } = yield* listen(Text, { expired: "drop" })
        yield* Publisher.publish(Text, "end")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "end")
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* letters, [])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        assert.deepInclude(yield* subscription.stats, { processed: 1, expired: 1, dead: 0 })
      })
    )

    test(
      "counts from the due time",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Publisher.publish(Text, "x", { delay: 300, expiresIn: 250 })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "x")
      })
    )

    test(
      "counts from the due time, also when nobody promotes it then",
      Effect.gen(function*() {
        yield* Publisher.publish(Text, "x", { delay: 20, expiresIn: 80 })
        yield* advance("250 millis")
        const { seen } = yield* listen(Text)
        yield* Effect.gen(function*() {
          yield* Publisher.publish(Text, "end", { delay: 50 })
          assert.strictEqual((yield* soon(Queue.take(seen))).payload, "end")
        }).pipe(Effect.provide(Rotif.layerBroker()))
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.reason), ["expired"])
      }),
      { delayed: false }
    )

    test(
      "holds for retries",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, {
          retryDelay: 200,
          handler: ({ payload }) => payload === "x" ? Effect.fail("no") : Effect.void
        })
        yield* Publisher.publish(Text, "x", { expiresIn: 150 })
        yield* Publisher.publish(Text, "end", { delay: 400 })
        assert.deepStrictEqual(yield* soon(payloads(seen, 2)), ["x", "end"])
        yield* soon(subscription.drain)
        assert.deepStrictEqual((yield* letters).map(({ attempt, failure }) => [failure.reason, attempt]), [[
          "expired",
          2
        ]])
      })
    )

    test(
      "is judged again when a handler would start",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          prefetch: 5,
          handler: ({ payload }) => payload === "slow" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publish(Text, "slow")
        yield* soon(Queue.take(seen))
        yield* Publisher.publish(Text, "x", { expiresIn: 100 })
        yield* Publisher.publish(Text, "end")
        yield* advance("300 millis")
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "end")
        yield* soon(subscription.drain)
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.reason), ["expired"])
      })
    )
  })
}
