/** Dead letters: list, requeue, remove, retention. */
import { assert, describe } from "@effect/vitest"
import { Clock, DateTime, Deferred, Effect, Option, Queue, Schema, Stream } from "effect"
import type { DeadLetter } from "rotif"
import { Broker, Channel, DeadLetters, Publisher, Retry } from "rotif"
import { Amount, burying, Created, Declined, everything, hopeless, ids, Paid, raws, Text, waiting } from "./burying.ts"
import { type Backend, leftover, listen, nothingLeft, promises } from "./kit.ts"

const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })

export const deadLettersSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  const bury = burying(backend)
  const until = waiting(backend)

  describe("DeadLetters.get", () => {
    test(
      "has the message and the whole failure",
      Effect.gen(function*() {
        const before = yield* Effect.map(Broker.Broker, ({ shards }) => shards)
        const { seen, subscription } = yield* listen(Notice, {
          ...hopeless,
          group: "mail",
          maxRetries: 1,
          retryDelay: 1
        })
        const receipt = yield* Publisher.publish(Notice, "hi", { params: { userId: "42" }, headers: { trace: "t" } })
        yield* soon(Queue.takeN(seen, 2))
        yield* soon(subscription.drain)
        const [listed, ...others] = yield* everything
        assert.deepStrictEqual(others, [])
        const letter = Option.getOrThrow(yield* DeadLetters.get(listed!.letterId))
        assert.deepStrictEqual(letter, listed)
        assert.isBelow(Number(letter.letterId.split(":")[0]), before)
        assert.deepInclude(letter, {
          id: receipt.id,
          group: "mail",
          channel: "users.:userId.notices",
          raw: "\"hi\"",
          attempt: 2,
          deliveryCount: 2,
          crashes: 0,
          history: [],
          malformed: undefined
        })
        assert.deepStrictEqual([{ ...letter.headers }, { ...letter.params }], [{ trace: "t" }, { userId: "42" }])
        assert.deepInclude(letter.failure, { reason: "exhausted", errorTag: "Declined", message: "no hi" })
        assert.include(letter.failure.cause, "Declined")
        assert.strictEqual(DateTime.toEpochMillis(letter.publishedAt), Number(receipt.position!.split("-")[0]))
        assert.isAtLeast(DateTime.toEpochMillis(letter.diedAt), DateTime.toEpochMillis(letter.publishedAt))
      })
    )

    test(
      "finds nothing under an id that no letter has",
      Effect.gen(function*() {
        for (const id of ["0:1-0", "5000:1-0", "nonsense", "0:1-0 "]) {
          assert.isTrue(Option.isNone(yield* DeadLetters.get(id)))
          assert.isFalse(yield* DeadLetters.requeue(id))
          assert.isFalse(yield* DeadLetters.remove(id))
        }
      })
    )
  })

  describe("DeadLetters.list", () => {
    const three = Effect.gen(function*() {
      yield* bury(Created, ["a", "broken"], { group: "billing" })
      yield* bury(Paid, ["b"], { group: "billing", retry: () => Retry.term })
      yield* bury(Text, ["c"], { group: "audit" })
    })
    const found = (filter: DeadLetter.Filter) =>
      Effect.map(
        DeadLetters.list(filter, { order: "oldest" }),
        ({ letters }) => letters.map(({ raw }) => JSON.parse(raw) as string)
      )

    test(
      "filters by channel, pattern, source, group, error tag and reason, and counts the same",
      Effect.gen(function*() {
        yield* three
        const cases: ReadonlyArray<readonly [DeadLetter.Filter, ReadonlyArray<string>]> = [
          [{}, ["a", "broken", "b", "c"]],
          [{ channel: "orders.created" }, ["a", "broken"]],
          [{ channel: "orders.*" }, ["a", "broken", "b"]],
          [{ channel: "**" }, ["a", "broken", "b", "c"]],
          [{ channel: Paid }, ["b"]],
          [{ channel: Channel.union([Paid, Text]) }, ["b", "c"]],
          [{ channel: Channel.pattern("orders.*", { payload: Schema.String }) }, ["a", "broken", "b"]],
          [{ group: "audit" }, ["c"]],
          [{ group: "billing", channel: "orders.paid" }, ["b"]],
          [{ errorTag: "Broken" }, ["broken"]],
          [{ reason: "term" }, ["b"]],
          [{ reason: ["exhausted", "decode"] }, ["a", "broken", "c"]],
          [{ group: "nobody" }, []],
          [{ channel: "nowhere" }, []]
        ]
        for (const [filter, expected] of cases) {
          assert.deepStrictEqual(yield* found(filter), expected)
          assert.strictEqual(yield* DeadLetters.count(filter), expected.length)
        }
      })
    )

    test(
      "filters by time: from is in, to is out",
      Effect.gen(function*() {
        yield* bury(Text, ["a"])
        yield* backend.advance(20)
        yield* bury(Text, ["b"])
        const [first, second] = yield* everything
        const [a, b] = [first!.diedAt, second!.diedAt]
        assert.deepStrictEqual(yield* found({ from: b }), ["b"])
        assert.deepStrictEqual(yield* found({ to: b }), ["a"])
        assert.deepStrictEqual(yield* found({ from: a, to: DateTime.add(b, { milliseconds: 1 }) }), ["a", "b"])
        assert.deepStrictEqual(yield* found({ from: DateTime.add(b, { milliseconds: 1 }) }), [])
        assert.deepStrictEqual([yield* DeadLetters.count({ from: b }), yield* DeadLetters.count({ to: a })], [1, 0])
      })
    )

    test(
      "counts by group, channel and reason",
      Effect.gen(function*() {
        yield* three
        const rows = yield* DeadLetters.countBy()
        assert.sameDeepMembers([...rows], [
          { group: "billing", channel: "orders.created", reason: "exhausted", count: 2 },
          { group: "billing", channel: "orders.paid", reason: "term", count: 1 },
          { group: "audit", channel: "texts", reason: "exhausted", count: 1 }
        ])
        assert.strictEqual(rows[0]?.count, 2)
        assert.lengthOf(yield* DeadLetters.countBy({ group: "billing" }), 2)
        assert.lengthOf(yield* DeadLetters.countBy({ channel: "orders.*", reason: "term" }), 1)
        const [letter] = yield* everything
        yield* DeadLetters.remove(letter!.letterId)
        assert.strictEqual(yield* DeadLetters.count({ channel: "orders.created" }), 1)
        yield* DeadLetters.purge({})
        assert.deepStrictEqual(yield* DeadLetters.countBy(), [])
        assert.strictEqual(yield* DeadLetters.count(), 0)
      })
    )

    test(
      "pages through all channels in the order of death, each letter once, while letters come and go",
      Effect.gen(function*() {
        const payloads = Array.from({ length: 10 }, (_, i) => String(i))
        for (const channel of [Created, Paid, Text]) yield* bury(channel, payloads)
        const before = yield* everything
        for (const order of ["oldest", "newest"] as const) {
          const expected = new Set(ids(before))
          const walked: Array<string> = []
          let cursor: string | undefined
          let pages = 0
          do {
            const page: DeadLetters.Page = yield* DeadLetters.list({}, { order, limit: 4, cursor })
            assert.isAtMost(page.letters.length, 4)
            walked.push(...ids(page.letters))
            cursor = page.cursor
            if (pages++ === 2) {
              // The letter at the cursor is removed, and a new one is added.
              yield* DeadLetters.remove(walked.at(-1)!)
              yield* bury(Text, ["new"])
            }
          } while (cursor !== undefined)
          const old = walked.filter((id) => expected.has(id))
          const inOrder = ids(before).filter((id) => old.includes(id))
          assert.deepStrictEqual(old, order === "oldest" ? inOrder : inOrder.toReversed())
          assert.strictEqual(new Set(walked).size, walked.length)
          const now = new Set(ids(yield* everything))
          for (const id of expected) if (now.has(id)) assert.include(walked, id)
        }
      })
    )

    test(
      "DeadLetters.all streams what list pages",
      Effect.gen(function*() {
        yield* bury(Text, Array.from({ length: 230 }, (_, i) => String(i)), { concurrency: 20 })
        const all = yield* Stream.runCollect(DeadLetters.all({}, { order: "oldest" }))
        assert.deepStrictEqual(ids(all), ids(yield* everything))
        assert.strictEqual(all.length, 230)
        assert.deepStrictEqual(yield* Stream.runCollect(DeadLetters.all({ group: "nobody" })), [])
      })
    )

    test(
      "refuses a filter or page that cannot be used, and names the option",
      Effect.gen(function*() {
        const wrong = [
          yield* Effect.flip(DeadLetters.list({}, { cursor: "yesterday" })),
          yield* Effect.flip(DeadLetters.list({}, { limit: 0 })),
          yield* Effect.flip(DeadLetters.list({}, { limit: 1.5 })),
          yield* Effect.flip(DeadLetters.list({ from: "yesterday" })),
          yield* Effect.flip(DeadLetters.count({ to: "tomorrow" })),
          yield* Effect.flip(DeadLetters.requeueAll({}, { limit: -1 })),
          yield* Effect.flip(DeadLetters.requeueAll({}, { limit: 1, rate: 0 })),
          yield* Effect.flip(DeadLetters.purge(undefined as never)),
          yield* Effect.flip(DeadLetters.purge({ grup: "g" } as never)),
          yield* Effect.flip(DeadLetters.requeueAll("g" as never, { limit: 1 })),
          yield* Effect.flip(DeadLetters.list({ chanel: "texts" } as never)),
          yield* Effect.flip(DeadLetters.subscribe({ name: "", handler: () => Effect.void })),
          yield* Effect.flip(DeadLetters.subscribe({ lease: 1, handler: () => Effect.void })),
          yield* Effect.flip(DeadLetters.subscribe({ concurrency: 0, handler: () => Effect.void }))
        ]
        assert.deepStrictEqual(
          wrong.map((error) => error._tag === "InvalidDeadLetterOption" ? error.option : error),
          [
            "cursor",
            "limit",
            "limit",
            "from",
            "to",
            "limit",
            "rate",
            "filter",
            "filter",
            "filter",
            "filter",
            "name",
            "lease",
            "concurrency"
          ]
        )
      })
    )
  })

  describe("DeadLetters.requeue", () => {
    test(
      "reaches only the group that failed; the others saw the message once",
      Effect.gen(function*() {
        const fixed = yield* Deferred.make<void>()
        const failing = yield* listen(Text, {
          group: "failing",
          maxRetries: 1,
          retryDelay: 1,
          handler: (): Effect.Effect<void, Declined> =>
            Effect.flatMap(
              Deferred.isDone(fixed),
              (isFixed) => isFixed ? Effect.void : Effect.fail(new Declined({ message: "no" }))
            )
        })
        const first = yield* listen(Text, { group: "first" })
        const second = yield* listen(Text, { group: "second" })
        const receipt = yield* Publisher.publish(Text, "x", { headers: { trace: "t" } })
        yield* soon(Queue.takeN(failing.seen, 2))
        yield* until(DeadLetters.count(), (count) => count === 1)
        const [letter] = yield* everything
        yield* Deferred.succeed(fixed, undefined)
        assert.isTrue(yield* DeadLetters.requeue(letter!.letterId))
        const message = yield* soon(Queue.take(failing.seen))
        assert.deepInclude(
          { id: message.id, attempt: message.attempt, crashes: message.crashes, deliveryCount: message.deliveryCount },
          { id: receipt.id, attempt: 1, crashes: 0, deliveryCount: 3 }
        )
        assert.deepStrictEqual({ ...message.headers }, { trace: "t" })
        assert.strictEqual(DateTime.toEpochMillis(message.publishedAt), Number(receipt.position!.split("-")[0]))
        assert.deepStrictEqual(yield* everything, [])
        // Messages that are published now come after all requeued ones.
        yield* Publisher.publish(Text, "marker")
        for (const { seen } of [first, second]) {
          const messages = yield* soon(Queue.takeN(seen, 2))
          assert.deepStrictEqual(messages.map(({ payload }) => payload), ["x", "marker"])
        }
        assert.strictEqual((yield* soon(Queue.take(failing.seen))).payload, "marker")
        yield* soon(Effect.all([failing, first, second].map(({ subscription }) => subscription.drain)))
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "begins anew with all retries, and keeps what happened before",
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, {
          ...hopeless,
          group: "g",
          maxRetries: 1,
          retryDelay: 1
        })
        yield* Publisher.publish(Text, "x")
        for (const life of [1, 2, 3]) {
          const messages = yield* soon(Queue.takeN(seen, 2))
          assert.deepStrictEqual(messages.map(({ attempt }) => attempt), [1, 2])
          yield* until(DeadLetters.count(), (count) => count === 1)
          const [letter] = yield* everything
          assert.strictEqual(letter!.deliveryCount, 2 * life)
          assert.deepStrictEqual(
            letter!.history.map(({ attempt, errorTag, reason }) => [attempt, errorTag, reason]),
            Array.from({ length: life - 1 }, () => [2, "Declined", "exhausted"])
          )
          const times = [
            ...letter!.history.map(({ diedAtMillis }) => diedAtMillis),
            DateTime.toEpochMillis(letter!.diedAt)
          ]
          assert.deepStrictEqual(times, times.toSorted((a, b) => a - b))
          assert.isTrue(yield* DeadLetters.requeue(letter!.letterId))
        }
      })
    )

    test(
      "with another payload, which the schema has checked",
      Effect.gen(function*() {
        const Wrong = Channel.make("amounts", { payload: Schema.String })
        const { seen } = yield* listen(Amount, { group: "g" })
        yield* Publisher.publish(Wrong, "seven")
        yield* until(DeadLetters.count({ reason: "decode" }), (count) => count === 1)
        const { letterId } = (yield* everything)[0]!
        const invalid = yield* Effect.flip(DeadLetters.requeue(letterId, { channel: Amount, payload: 7.5 }))
        assert.strictEqual(invalid._tag, "InvalidPayload")
        const wrong = yield* Effect.flip(DeadLetters.requeue(letterId, { channel: Text, payload: "7" }))
        assert.deepInclude(wrong, { _tag: "WrongChannel", channel: "amounts", given: "texts" })
        assert.strictEqual(yield* DeadLetters.count(), 1)
        assert.isTrue(yield* DeadLetters.requeue(letterId, { channel: Amount, payload: 7 }))
        const message = yield* soon(Queue.take(seen))
        assert.deepStrictEqual([message.payload, message.attempt], [7, 1])
        assert.isFalse(yield* DeadLetters.requeue(letterId, { channel: Amount, payload: 7 }))
      })
    )

    test(
      "an edited payload that is too large moves nothing",
      Effect.gen(function*() {
        yield* bury(Text, ["x"])
        const { letterId } = (yield* everything)[0]!
        const error = yield* Effect.flip(
          DeadLetters.requeue(letterId, { channel: Text, payload: "y".repeat(200) })
        )
        assert.strictEqual(error._tag, "PayloadTooLarge")
        assert.deepStrictEqual(yield* raws, ["x"])
      }),
      { maxPayloadBytes: 100 }
    )

    test(
      "of concurrent calls for one letter one moves it",
      Effect.gen(function*() {
        yield* bury(Text, ["x"], { group: "g" })
        const { letterId } = (yield* everything)[0]!
        const moved = yield* Effect.all(
          [
            ...Array.from({ length: 10 }, () => DeadLetters.requeue(letterId)),
            ...Array.from(
              { length: 5 },
              () => Effect.map(DeadLetters.requeueAll({}, { limit: 10 }), (progress) => progress.moved === 1)
            )
          ],
          { concurrency: "unbounded" }
        )
        assert.strictEqual(moved.filter(Boolean).length, 1)
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "waits for a group that has no consumer",
      Effect.gen(function*() {
        yield* bury(Text, ["x"], { group: "g" })
        const { letterId } = (yield* everything)[0]!
        assert.isTrue(yield* DeadLetters.requeue(letterId))
        assert.strictEqual((yield* leftover(Text)).ready, 1)
        const other = yield* listen(Text, { group: "other", startFrom: "latest" })
        const { seen } = yield* listen(Text, { group: "g" })
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "x")
        assert.strictEqual(yield* Queue.size(other.seen), 0)
      })
    )
  })

  describe("DeadLetters.requeueAll", () => {
    test(
      "requeues the oldest that match, up to the limit, and tells how far it is",
      Effect.gen(function*() {
        yield* bury(Text, Array.from({ length: 250 }, (_, i) => String(i)), { group: "g", concurrency: 10 })
        yield* bury(Created, ["other"], { group: "h" })
        const told: Array<DeadLetters.Progress> = []
        const dry = yield* DeadLetters.requeueAll({ group: "g" }, { limit: 1000, dryRun: true })
        assert.deepStrictEqual(dry, { matched: 250, moved: 0 })
        assert.strictEqual(yield* DeadLetters.count(), 251)
        const oldest = ids(yield* everything).slice(220)
        const progress = yield* DeadLetters.requeueAll({ group: "g" }, {
          limit: 220,
          onProgress: (progress) => Effect.sync(() => told.push(progress))
        })
        assert.deepStrictEqual(progress, { matched: 220, moved: 220 })
        assert.deepStrictEqual(told.map(({ moved }) => moved), [100, 200, 220])
        assert.deepStrictEqual(ids(yield* everything), oldest)
        assert.strictEqual((yield* leftover(Text)).ready, 220)
      })
    )

    test(
      "takes no letter that dies again meanwhile",
      Effect.gen(function*() {
        yield* bury(Text, ["a", "b", "c"], { group: "g" })
        const { seen } = yield* listen(Text, { ...hopeless, group: "g" })
        const progress = yield* soon(DeadLetters.requeueAll({}, { limit: 1000, rate: 50 }))
        assert.deepStrictEqual(progress, { matched: 3, moved: 3 })
        yield* soon(Queue.takeN(seen, 3))
        yield* until(DeadLetters.count(), (count) => count === 3)
        assert.strictEqual(yield* Queue.size(seen), 0)
      })
    )

    test(
      "keeps to a rate",
      Effect.gen(function*() {
        yield* bury(Text, ["a", "b", "c", "d", "e"], { group: "g" })
        const from = yield* Clock.currentTimeMillis
        yield* soon(DeadLetters.requeueAll({}, { limit: 5, rate: 20 }))
        // A pause of 50 ms after each but the last.
        assert.isAtLeast((yield* Clock.currentTimeMillis) - from, 4 * 50 - 1)
      })
    )
  })

  describe("DeadLetters.remove and purge", () => {
    test(
      "remove deletes one letter, once",
      Effect.gen(function*() {
        yield* bury(Text, ["a", "b"])
        const [first] = yield* everything
        const removed = yield* Effect.all(
          Array.from({ length: 5 }, () => DeadLetters.remove(first!.letterId)),
          { concurrency: 5 }
        )
        assert.strictEqual(removed.filter(Boolean).length, 1)
        assert.deepStrictEqual(yield* raws, ["b"])
      })
    )

    test(
      "purge deletes what matches",
      Effect.gen(function*() {
        yield* bury(Text, ["a", "broken", "b"])
        yield* bury(Paid, ["c"])
        assert.strictEqual(yield* DeadLetters.purge({ channel: "texts", errorTag: "Declined" }), 2)
        assert.deepStrictEqual(yield* raws, ["broken", "c"])
        assert.strictEqual(yield* DeadLetters.purge({}), 2)
        assert.strictEqual(yield* DeadLetters.purge({}), 0)
      })
    )
  })

  describe("DeadLetters: retention", () => {
    const archived: Array<string> = []
    const archive = (letters: ReadonlyArray<DeadLetter.DeadLetter>) =>
      Effect.sync(() => archived.push(...letters.map(({ raw }) => raw)))

    test(
      "deletes letters that are too old, after the archive has them",
      Effect.gen(function*() {
        archived.length = 0
        yield* bury(Text, ["old"])
        yield* bury(Paid, ["old too"])
        const from = DateTime.toEpochMillis((yield* everything)[0]!.diedAt)
        yield* until(DeadLetters.count(), (count) => count === 0)
        assert.sameMembers(archived, ["\"old\"", "\"old too\""])
        assert.isAtLeast((yield* Clock.currentTimeMillis) - from, 300 - 1)
        assert.deepStrictEqual(yield* DeadLetters.countBy(), [])
      }),
      { deadLetters: { maxAge: "300 millis", interval: "20 millis", archive } }
    )

    test(
      "deletes the oldest when there are too many, over all channels",
      Effect.gen(function*() {
        yield* bury(Text, ["1", "2", "3"])
        yield* bury(Paid, ["4", "5", "6"])
        yield* until(DeadLetters.count(), (count) => count <= 4)
        assert.deepStrictEqual(yield* raws, ["3", "4", "5", "6"])
      }),
      { deadLetters: { maxCount: 4, interval: "20 millis" } }
    )

    test(
      "applyRetention does it now, and tells how many",
      Effect.gen(function*() {
        archived.length = 0
        // Called directly, without the background duty.
        const { applyRetention } = yield* DeadLetters.make({ deadLetters: { maxCount: 1, archive } })
        yield* bury(Text, ["1", "2", "3"])
        assert.strictEqual(yield* applyRetention, 2)
        assert.deepStrictEqual(archived, ["\"1\"", "\"2\""])
        assert.deepStrictEqual(yield* raws, ["3"])
        assert.strictEqual(yield* applyRetention, 0)
        // With the options of the layer nothing is above the limits.
        assert.strictEqual(yield* DeadLetters.applyRetention, 0)
      })
    )

    const offeredToArchive: Array<string> = []
    test(
      "an archive that fails deletes nothing, and gets the letters again",
      Effect.gen(function*() {
        offeredToArchive.length = 0
        yield* bury(Text, ["a", "b"])
        yield* until(DeadLetters.count(), () => offeredToArchive.length >= 6)
        assert.deepStrictEqual(yield* raws, ["a", "b"])
      }),
      {
        deadLetters: {
          maxAge: 0,
          interval: "20 millis",
          archive: (letters) =>
            Effect.andThen(
              Effect.sync(() => offeredToArchive.push(...ids(letters))),
              Effect.fail("the archive is full")
            )
        }
      }
    )
  })
}
