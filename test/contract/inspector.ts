/** Inspector: finds nothing in a sound namespace, whether it is idle or in use. */
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Queue, Ref, Schedule, Schema, Stream } from "effect"
import { Broker, Channel, DeadLetters, Inspector, Publisher, Scheduler, Subscription, Transaction } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })
const Latest = Channel.make("latest", { payload: Schema.String, limits: { maxLength: 3 } })
const AnyText = Channel.pattern("*", { payload: Schema.String })
const Room = Channel.make("rooms.:room", { payload: Schema.String })

/** Uses most operations of Rotif, and all that leave data behind. */
const everything = (backend: Backend) =>
  Effect.gen(function*() {
    const { soon } = backend
    // Its messages are still there when it returns.
    yield* Effect.scoped(listen(Text, { group: "gone", exactlyOnce: true }))
    const plain = yield* listen(AnyText, {
      group: "plain",
      // It leaves messages to others.
      prefetch: 1,
      maxRetries: 2,
      retry: Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 2 })),
      handler: Effect.fnUntraced(function*(message) {
        if (message.payload === "retried" && message.attempt < 3) return yield* Effect.fail("again")
        if (message.payload === "dead") return yield* Effect.fail("no")
        if (message.payload === "released" && message.deliveryCount === 1) return yield* message.release
        if (message.payload === "slow") yield* Effect.sleep("50 millis")
      })
    })
    const once = yield* Subscription.make(Text, {
      group: "once",
      transactional: true,
      exactlyOnce: { key: ({ payload }) => payload },
      handler: Effect.fnUntraced(function*({ payload }) {
        yield* Transaction.incrby(yield* Transaction.key("count"), 1)
        yield* Transaction.publish(Other, payload)
        yield* Transaction.publish(Latest, payload, { id: payload, delay: "1 hour" })
      })
    })
    yield* Publisher.publishAll(Text, ["a", "b", "retried", "dead", "released", "slow", "a"])
    yield* Publisher.publish(Other, "dead", { id: "once" })
    yield* Publisher.publish(Other, "dead", { id: "once" })
    yield* Publisher.publish(Room, "a", { params: { room: "x" } })
    yield* Publisher.publishAll(Latest, ["1", "2", "3", "4", "5", "6"])
    yield* Publisher.publish(Text, "soon", { delay: "30 millis" })
    yield* Publisher.publishAll(Text, ["1", "2", "3"], (id) => ({ id, delay: "1 hour" }))
    yield* Scheduler.cancel(Text, "2")
    yield* Scheduler.recurring("often", { every: "1 hour" }, Text, "tick")
    yield* Scheduler.recurring("never", { every: "1 hour" }, Other, "tick")
    yield* Scheduler.removeRecurring("never")
    // A dead letter of "texts", one of "others", and the one that the transaction has published.
    yield* until(backend, Effect.map(DeadLetters.count(), (count) => count === 3))
    const { letters } = yield* DeadLetters.list()
    yield* DeadLetters.requeue(letters[0]!.letterId)
    yield* DeadLetters.remove(letters[1]!.letterId)
    yield* until(backend, Effect.map(DeadLetters.count(), (count) => count === 2))
    yield* until(backend, Effect.map(once.stats, ({ duplicates, processed }) => duplicates + processed === 8))
    const gone = yield* listen(Text, { group: "gone", exactlyOnce: true })
    yield* soon(Queue.take(gone.seen))
    yield* soon(gone.subscription.unsubscribe({ removeGroup: true }))
    return { plain: plain.subscription, once }
  })

export const inspectorSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { advance, soon } = backend

  describe("Inspector.verify", () => {
    test(
      "finds nothing in a namespace in which nothing was done",
      Effect.gen(function*() {
        const { findings, isComplete, listsKeys, looked } = yield* Inspector.verify()
        assert.deepStrictEqual(findings, [])
        assert.isTrue(isComplete && listsKeys)
        assert.strictEqual(looked.channels, 0)
      })
    )

    test(
      "finds nothing after everything was used, and says what it has looked at",
      Effect.gen(function*() {
        const { once, plain } = yield* everything(backend)
        const report = yield* soon(Inspector.verify({ confirmAfter: 0 }))
        assert.deepStrictEqual(report.findings, [])
        assert.strictEqual(report.looked.letters, 2)
        assert.strictEqual(report.looked.recurring, 1)
        assert.isAtLeast(report.looked.waiting, 4)
        assert.isAtLeast(report.looked.channels, 4)
        yield* soon(plain.drain)
        yield* soon(once.drain)
        assert.deepStrictEqual(yield* soon(Stream.runCollect(Inspector.findings({ confirmAfter: 0 }))), [])
        assert.deepInclude(yield* soon(Inspector.repair({ confirmAfter: 0 })), { repaired: [], left: [] })
      })
    )

    test(
      "finds nothing while everything goes on",
      Effect.gen(function*() {
        const isOver = yield* Ref.make(false)
        const busy = yield* Effect.forkChild(
          everything(backend).pipe(
            Effect.andThen(Effect.gen(function*() {
              // Consumers start and stop, and take over the messages of others.
              for (let round = 0; round < 6; round++) {
                yield* Effect.scoped(Effect.gen(function*() {
                  const { subscription } = yield* listen(AnyText, {
                    group: "plain",
                    concurrency: 4,
                    retry: Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 2 })),
                    handler: ({ attempt, payload }) =>
                      attempt < 3 && payload.length % 2 === 0 ? Effect.fail("again") : Effect.void
                  })
                  yield* Publisher.publishAll(Text, Array.from({ length: 40 }, (_, i) => `${"x".repeat(i % 7)}${i}`))
                  yield* Publisher.publishAll(
                    Latest,
                    Array.from({ length: 40 }, String),
                    () => ({ delay: "10 millis" })
                  )
                  yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed > 5))
                }))
                const { letters } = yield* DeadLetters.list({}, { limit: 5 })
                for (const { letterId } of letters) yield* DeadLetters.requeue(letterId)
              }
            })),
            Effect.ensuring(Ref.set(isOver, true))
          )
        )
        let rounds = 0
        while (!(yield* Ref.get(isOver))) {
          const { findings } = yield* soon(Inspector.verify({ confirmAfter: 20, tolerance: "30 seconds" }))
          assert.deepStrictEqual(findings, [])
          rounds++
          yield* Effect.yieldNow
        }
        yield* Fiber.join(busy)
        assert.isAbove(rounds, 0)
      })
    )

    test(
      "finds a due message that is not moved; repair moves it",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        yield* Publisher.publishAll(Text, ["a", "b"], () => ({ delay: "10 millis" }))
        yield* advance("1 second")
        const early = yield* soon(Inspector.verify({ confirmAfter: 0 }))
        assert.deepStrictEqual(early.findings, [])
        const { findings } = yield* soon(Inspector.verify({ confirmAfter: 0, tolerance: "500 millis" }))
        assert.deepStrictEqual([...new Set(findings.map(({ kind }) => kind))], ["Overdue"])
        assert.isDefined(findings[0]!.repair)
        assert.strictEqual((yield* broker.info(Channel.selector(Text))).waiting, 2)
        const { left } = yield* soon(Inspector.repair({ confirmAfter: 0, tolerance: "500 millis" }))
        assert.deepStrictEqual(left, [])
        assert.strictEqual((yield* broker.info(Channel.selector(Text))).waiting, 0)
        const after = yield* soon(Inspector.verify({ confirmAfter: 0, tolerance: "500 millis" }))
        assert.deepStrictEqual(after.findings, [])
        const { seen } = yield* listen(Text, { group: "g" })
        assert.sameMembers((yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload), ["a", "b"])
      }),
      { delayed: false }
    )

    test(
      "refuses options that cannot be used",
      Effect.gen(function*() {
        for (const option of ["tolerance", "confirmAfter", "limit"] as const) {
          const error = yield* Effect.flip(Inspector.verify({ [option]: -1 }))
          assert.deepInclude(error, { _tag: "InvalidInspectorOption", option })
        }
      })
    )
  })
}
