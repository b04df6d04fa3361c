/** Reports of failures: each failure is reported once, in words, and a storm is cut short. */
import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Metric, Queue, Schema, Stream } from "effect"
import { Broker, Channel, DeadLetters, Health, Publisher, Subscription } from "rotif"
import * as Consumer from "../../src/subscription/consumer.ts"
import * as Reports from "../../src/internal/reports.ts"
import * as LogLines from "../fixtures/logLines.ts"
import type { Backend, Body, Options } from "./kit.ts"
import { letters, listen, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Numbers = Channel.make("texts", { payload: Schema.Number })

class Declined extends Data.TaggedError("Declined")<{ readonly message: string }> {}

export const reportsSuite = (backend: Backend): void => {
  type Log = ReturnType<typeof LogLines.make>
  const test = (name: string, body: (log: Log) => Body, options?: Options, least?: "Info" | "Debug") =>
    it[backend.clock](name, () => {
      const log = LogLines.make(least)
      return body(log).pipe(
        Effect.scoped,
        Effect.provide(backend.layer({ drainTimeout: "5 seconds", ...options })),
        Effect.provide(log.layer)
      )
    })

  const some = (log: Log, level: string, ...texts: ReadonlyArray<string>) =>
    until(backend, Effect.map(log.count(level, ...texts), (count) => count > 0))

  describe("Subscription reports", () => {
    test("a dead letter is one warning: group, channel, id, attempt, reason, tag", (log) =>
      Effect.gen(function*() {
        yield* listen(Text, {
          group: "billing",
          maxRetries: 1,
          retryDelay: 0,
          handler: () => Effect.fail(new Declined({ message: "no funds" }))
        })
        yield* Publisher.publish(Text, "secret payload", { id: "o-1" })
        yield* some(log, "Warn", "\"billing\"", "\"texts\"", "o-1", "attempt 2", "exhausted", "Declined", "no funds")
        assert.strictEqual(log.find("Warn", "o-1").length, 1)
        // A retried attempt is a line for debugging only.
        assert.deepStrictEqual(log.lines.filter(({ text }) => text.includes("attempt 1")), [])
        assert.isFalse(log.lines.some(({ text }) => text.includes("secret payload")))
      }))

    test(
      "a failure that is retried is a line for debugging",
      (log) =>
        Effect.gen(function*() {
          yield* listen(Text, {
            group: "g",
            maxRetries: 1,
            retryDelay: 0,
            handler: () => Effect.fail(new Declined({ message: "no" }))
          })
          yield* Publisher.publish(Text, "a", { id: "o-1" })
          yield* some(log, "Warn", "exhausted")
          assert.strictEqual(log.find("Debug", "o-1", "attempt 1", "Declined", "tried again").length, 1)
        }),
      undefined,
      "Debug"
    )

    test(
      "what expired and is dropped is a line for debugging, and each doubling from the eighth on a warning",
      (log) =>
        Effect.gen(function*() {
          const { subscription } = yield* listen(Text, { group: "g", expired: "drop" })
          yield* subscription.pause
          yield* Publisher.publishAll(Text, Array.from({ length: 17 }, (_, i) => `secret ${i}`), { expiresIn: 20 })
          yield* backend.advance(50)
          yield* subscription.resume
          yield* until(backend, Effect.map(log.count("Debug", "expired", "is dropped"), (count) => count === 15))
          assert.deepStrictEqual(
            log.find("Warn", "is dropped").map(({ text }) => /so have (\d+)/.exec(text)?.[1]),
            ["8", "16"]
          )
          assert.strictEqual((yield* subscription.stats).expired, 17)
          assert.isFalse(log.lines.some(({ text }) => text.includes("secret")))
        }),
      undefined,
      "Debug"
    )

    test("a function for reports has each message that is dropped", () =>
      Effect.gen(function*() {
        const reports = yield* Queue.unbounded<Subscription.Report>()
        const { subscription } = yield* listen(Text, {
          group: "g",
          expired: "drop",
          reports: (report) => Queue.offer(reports, report)
        })
        yield* subscription.pause
        yield* Publisher.publishAll(Text, ["a", "b"], { expiresIn: 20 })
        yield* backend.advance(50)
        yield* subscription.resume
        const told = yield* backend.soon(Queue.takeN(reports, 2))
        assert.deepStrictEqual(told.map(({ kind, reason, round }) => [kind, reason, round]), [
          ["Expired", "expired", 1],
          ["Expired", "expired", 2]
        ])
      }))

    test("a message that was not judged is an error, at its rounds 1 and 2, and is not lost", (log) =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const attempts = yield* Queue.unbounded<number>()
        let round = 0
        const consumer = yield* Consumer.make({
          broker,
          membership: {
            group: "g",
            consumer: "c",
            selector: Channel.selector(Text),
            start: { _tag: "Earliest" },
            leaseMillis: 30_000,
            doneMillis: undefined,
            maxCrashes: 3
          },
          concurrency: 1,
          prefetch: { most: 0, first: 0, isFixed: true },
          blockMillis: 1_000,
          drainMillis: 1_000,
          maxCrashes: 3,
          slowMillis: 60_000,
          reporter: yield* Reports.make(new Map(), "g", "Warn"),
          expired: "drop",
          handling: () => ({
            _tag: "Single",
            handle: () =>
              Effect.andThen(
                Queue.offer(attempts, ++round),
                round <= 2 ? Effect.die(new Error("a bug of ours")) : Effect.succeed({ _tag: "Ack" } as const)
              ),
            verdict: () => Effect.die(new Error("another one"))
          }),
          onEnd: () => {},
          afterEnd: Effect.void
        })
        yield* Publisher.publish(Text, "secret", { id: "o-1" })
        yield* backend.soon(Queue.takeN(attempts, 3))
        yield* until(backend, Effect.sync(() => consumer.held() === 0))
        assert.deepStrictEqual(
          log.find("Error", "o-1", "was not judged", "a bug of ours").map(({ text }) => text.includes("2 times")),
          [false, true]
        )
        yield* consumer.ending.ask
      }))

    test("a message that does not decode is reported without its payload", (log) =>
      Effect.gen(function*() {
        yield* listen(Numbers, { group: "g" })
        yield* Publisher.publish(Text, "secret payload", { id: "o-1" })
        yield* some(log, "Warn", "o-1", "decode")
        assert.isFalse(log.lines.some(({ text }) => text.includes("secret")))
      }))

    test("a kind of defect is reported at its rounds 1, 2, 4, 8", (log) =>
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, {
          group: "g",
          maxRetries: 100,
          retryDelay: 0,
          handler: ({ attempt }) => attempt > 9 ? Effect.void : Effect.die(new TypeError(`no field ${attempt}`))
        })
        yield* Publisher.publish(Text, "a", { id: "o-1" })
        yield* backend.soon(Queue.takeN(seen, 10))
        const told = log.find("Warn", "o-1", "defect", "TypeError")
        assert.deepStrictEqual(told.map(({ text }) => /attempt (\d+)/.exec(text)![1]), ["1", "2", "4", "8"])
      }))

    test("a handler that always ends by interruption is reported at rounds 1, 2, 4, 8", (log) =>
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, {
          group: "g",
          retryDelay: 0,
          // Nine rounds: without an end, the number of further rounds would depend on when the test looks.
          handler: ({ deliveryCount }) => deliveryCount < 10 ? Effect.interrupt : Effect.void
        })
        yield* Publisher.publish(Text, "a", { id: "o-1" })
        yield* backend.soon(Queue.takeN(seen, 10))
        assert.strictEqual(log.find("Warn", "o-1", "interruption").length, 4)
      }))

    test("a message that is released again and again is reported at rounds 1, 2, 4, 8; once is no warning", (log) =>
      Effect.gen(function*() {
        const { seen } = yield* listen(Text, { group: "g", handler: (message) => message.release })
        yield* Publisher.publish(Text, "a", { id: "o-1" })
        yield* backend.soon(Queue.takeN(seen, 10))
        assert.strictEqual(log.find("Info", "o-1", "released").length, 1)
        assert.strictEqual(log.find("Warn", "o-1", "released").length, 3)
      }))

    test("an exactlyOnce key that stays busy is reported", (log) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group: "g",
          concurrency: 2,
          exactlyOnce: { key: () => "one" },
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, ["a", "b"])
        yield* backend.soon(Queue.take(seen))
        yield* until(backend, Effect.map(log.count("Warn", "exactlyOnce key"), (count) => count >= 2))
        yield* Deferred.succeed(gate, undefined)
      }))

    test("a storm is reported in ten lines and a count of the omitted reports", (log) =>
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, {
          group: "g",
          concurrency: 50,
          maxRetries: 0,
          handler: () => Effect.fail(new Declined({ message: "no" }))
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 200 }, String))
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 200))
        assert.strictEqual(log.find("Warn", "dead letter").length, 10)
        // At the end of the window, or with the subscription.
        yield* backend.soon(subscription.drain)
        assert.strictEqual(log.find("Warn", "\"g\"", "190 more reports were left out", "190 DeadLetter").length, 1)
      }))

    test("omitted reports are counted when the window ends", (log) =>
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, {
          group: "g",
          maxRetries: 0,
          handler: () => Effect.fail(new Declined({ message: "no" }))
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 12 }, String))
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 12))
        yield* backend.advance("10 seconds")
        yield* some(log, "Warn", "2 more reports were left out")
      }))

    test("a function for reports that never answers is given up: it has all of them, at most 100 at a time", (log) =>
      Effect.gen(function*() {
        let called = 0
        let open = 0
        let most = 0
        yield* listen(Text, {
          group: "g",
          maxRetries: 0,
          concurrency: 200,
          handler: () => Effect.fail(new Declined({ message: "no" })),
          reports: () =>
            Effect.sync(() => {
              called++
              most = Math.max(most, ++open)
            }).pipe(Effect.andThen(Effect.never), Effect.onInterrupt(() => Effect.sync(() => open--)))
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 150 }, String))
        yield* until(backend, Effect.sync(() => called === 150))
        assert.strictEqual(most, 100)
        yield* until(backend, Effect.sync(() => open === 0))
        assert.lengthOf(log.find("Error", "function for reports", "\"g\"", "failed 1 times"), 1)
      }))

    test("reports that wait for a function that never answers are left out, and counted, when the subscription ends", (log) =>
      Effect.gen(function*() {
        let called = 0
        const { subscription } = yield* listen(Text, {
          group: "g",
          maxRetries: 0,
          concurrency: 200,
          handler: () => Effect.fail(new Declined({ message: "no" })),
          reports: () => Effect.andThen(Effect.sync(() => called++), Effect.never)
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 300 }, String))
        yield* until(backend, Effect.map(letters, ({ length }) => length === 300))
        yield* backend.soon(subscription.drain)
        const [line] = log.find("Warn", "\"g\"", "more reports were left out")
        assert.strictEqual(called + Number(/\((\d+) DeadLetter\)/.exec(line!.text)![1]), 300)
      }))

    test("goes to a level, to no log, or to a function that receives all reports", (log) =>
      Effect.gen(function*() {
        const got: Array<Subscription.Report> = []
        const failing = { maxRetries: 1, retryDelay: 0, handler: () => Effect.fail(new Declined({ message: "no" })) }
        yield* listen(Text, { ...failing, group: "loud", reports: "Error" })
        yield* listen(Text, { ...failing, group: "silent", reports: "None" })
        yield* listen(Text, {
          ...failing,
          group: "function",
          reports: (report) => Effect.andThen(Effect.sync(() => got.push(report)), Effect.die("this one fails, too"))
        })
        yield* Publisher.publish(Text, "a", { id: "o-1" })
        yield* until(backend, Effect.map(letters, (all) => all.length === 3))
        yield* until(backend, Effect.sync(() => got.length === 2))
        assert.deepStrictEqual(
          got.map(({ attempt, group, id, kind, reason, tag }) => [kind, group, id, attempt, reason, tag]),
          [
            ["Failure", "function", "o-1", 1, undefined, "Declined"],
            ["DeadLetter", "function", "o-1", 2, "exhausted", "Declined"]
          ]
        )
        yield* some(log, "Error", "\"loud\"", "exhausted")
        assert.strictEqual(log.find("Error", "reports of group \"function\" failed").length, 2)
        assert.isFalse(log.lines.some(({ text }) => text.includes("\"silent\"")))
        const refused = yield* Effect.flip(
          Subscription.make(Text, { handler: () => Effect.void, reports: "loud" as never })
        )
        assert.deepInclude(refused, { _tag: "InvalidSubscription", option: "reports" })
      }))

    test("a handler that runs for too long is reported once, in health, and in a metric", (log) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group: "slow handlers",
          lease: 300,
          slowHandler: 400,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publish(Text, "a", { id: "o-1" })
        yield* backend.soon(Queue.take(seen))
        yield* some(log, "Warn", "o-1", "\"slow handlers\"", "running")
        yield* backend.advance(500)
        assert.strictEqual(log.find("Warn", "o-1").length, 1)
        assert.deepStrictEqual((yield* Health.check).reasons.map(({ kind }) => kind), ["StuckHandler"])
        const counted = (yield* Metric.snapshot).find(({ attributes, id }) =>
          id === "rotif.process.slow" && attributes?.["messaging.consumer.group.name"] === "slow handlers"
        )
        assert.deepInclude(counted?.state, { count: 1 })
        yield* Deferred.succeed(gate, undefined)
      }))
  })

  describe("DeadLetters.subscribe reports", () => {
    test("a handler that runs for too long is reported once", (log) =>
      Effect.gen(function*() {
        const begun = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        yield* listen(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
        yield* DeadLetters.subscribe({
          name: "desk",
          lease: 300,
          slowHandler: 250,
          handler: () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(gate))
        })
        yield* Publisher.publish(Text, "a")
        yield* backend.soon(Deferred.await(begun))
        yield* some(log, "Warn", "\"desk\"", "dead letter", "may hang")
        yield* backend.advance(400)
        assert.strictEqual(log.find("Warn", "may hang").length, 1)
        yield* Deferred.succeed(gate, undefined)
      }))
  })

  describe("Subscription.stream", () => {
    test("a stream whose consumer failed leaves a line and an unhealthy report, until one begins again", (log) =>
      Effect.gen(function*() {
        const run = (handle: () => Effect.Effect<void, Declined>) =>
          Stream.runForEach(
            Stream.take(Subscription.stream(Text, { group: "g" }), 1),
            (message) => Effect.andThen(handle(), message.ack)
          )
        yield* Publisher.publish(Text, "a")
        const error = yield* Effect.flip(backend.soon(run(() => Effect.fail(new Declined({ message: "no" })))))
        assert.strictEqual((error as Declined)._tag, "Declined")
        assert.strictEqual(log.find("Error", "\"texts\"", "\"g\"", "Declined").length, 1)
        const report = yield* Health.check
        assert.deepStrictEqual(report.reasons.map(({ kind, status, subject }) => [kind, status, subject]), [
          ["EndedStream", "unhealthy", "group \"g\" on texts"]
        ])
        assert.isFalse(report.isReady)
        yield* backend.soon(run(() => Effect.void))
        assert.strictEqual((yield* Health.check).status, "healthy")
        assert.strictEqual(log.find("Error").length, 1)
      }))

    test("a stream of dead letters whose consumer failed leaves a line", (log) =>
      Effect.gen(function*() {
        yield* listen(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "a")
        yield* Effect.flip(
          backend.soon(Stream.runForEach(DeadLetters.stream({ name: "desk" }), () => Effect.fail("oh")))
        )
        assert.strictEqual(log.find("Error", "dead letters", "desk").length, 1)
      }))
  })

  describe("the archive of dead letters", () => {
    const refusing = { maxAge: "20 millis", interval: "20 millis", archive: () => Effect.fail("full") } as const
    test("an archive that refuses is reported at rounds 1, 2, 4, 8", (log) =>
      Effect.gen(function*() {
        yield* listen(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "a")
        yield* some(log, "Error", "archive", "8 times")
        assert.strictEqual(log.find("Error", "archive").length, 4)
        assert.strictEqual((yield* letters).length, 1)
      }), { deadLetters: refusing })

    test("applyRetention acts on the limits, also where nothing is deleted by itself", () =>
      Effect.gen(function*() {
        yield* listen(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publishAll(Text, ["1", "2", "3"])
        yield* until(backend, Effect.map(letters, (all) => all.length === 3))
        yield* backend.advance("100 millis")
        assert.strictEqual((yield* letters).length, 3)
        assert.strictEqual(yield* DeadLetters.applyRetention, 2)
      }), { deadLetters: { enabled: false, maxCount: 1, interval: "10 millis" } })

    const Archive = Channel.make("dlq-archive.texts", { payload: Schema.String })
    test("no wildcard reads it, and dead letters of it are not archived again", () =>
      Effect.gen(function*() {
        const archived: Array<string> = []
        const all = yield* listen(Channel.pattern("**", { payload: Schema.String }), { group: "all" })
        const named = yield* listen(Archive, { group: "named", maxRetries: 0, handler: () => Effect.fail("no") })
        const below = yield* listen(Channel.pattern("dlq-archive.*", { payload: Schema.String }), { group: "below" })
        yield* Publisher.publish(Archive, "a")
        yield* Publisher.publish(Text, "b")
        assert.strictEqual((yield* backend.soon(Queue.take(named.seen))).payload, "a")
        assert.strictEqual((yield* backend.soon(Queue.take(below.seen))).payload, "a")
        assert.strictEqual((yield* backend.soon(Queue.take(all.seen))).payload, "b")
        yield* until(backend, Effect.map(letters, (found) => found.length === 1))
        const { applyRetention } = yield* DeadLetters.make({
          deadLetters: {
            maxCount: 0,
            archive: (some) => Effect.sync(() => archived.push(...some.map(({ channel }) => channel)))
          }
        })
        assert.strictEqual(yield* applyRetention, 1)
        assert.deepStrictEqual(archived, [])
      }))
  })
}
