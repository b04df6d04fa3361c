/** Batches: a handler gets many messages at once, each of them is settled by its own outcome, and a bad one dies alone. */
import { assert, describe } from "@effect/vitest"
import { Data, Deferred, Effect, Fiber, Queue, Schema } from "effect"
import {
  Batch,
  Broker,
  Channel,
  DeadLetters,
  Message,
  Middleware,
  Publisher,
  Retry,
  Subscription,
  Transaction
} from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

const Rows = Channel.make("batches.rows", { payload: Schema.String })
const Numbers = Channel.make("batches.numbers", { payload: Schema.FiniteFromString })
/** The same channel without a schema: what a publisher of another version may store. */
const Anything = Channel.make("batches.numbers", { payload: Schema.Unknown })

class Invalid extends Data.TaggedError("Invalid")<{ readonly message: string }> {}
class Down extends Data.TaggedError("Down")<{ readonly message: string }> {}

const retryDelay = 20

type Row = Message.Message<typeof Rows>

/** Channels that are spread over all shards of a Cluster. */
const spread = Array.from(
  { length: 16 },
  (_, i) => Channel.make(`batches.spread.${i}` as string, { payload: Schema.String })
)
const Copies = Channel.make("batches.copies", { payload: Schema.String })

const names = (count: number) => Array.from({ length: count }, (_, i) => `r${i}`)

/** Subscribes in batches, and gives the payloads of every batch to the test before `handler` runs. */
const collect = Effect.fnUntraced(function*<E = never, R = never, Transactional extends boolean = false>(
  options: Omit<Subscription.BatchOptions<typeof Rows, E, R, readonly [], Transactional>, "handler"> & {
    readonly handler?: Subscription.BatchOptions<typeof Rows, E, R>["handler"]
  }
) {
  const seen = yield* Queue.unbounded<ReadonlyArray<string>>()
  const { handler = () => Effect.void, ...rest } = options
  const subscription = yield* Subscription.batch(Rows, {
    group: "g",
    retryDelay,
    ...rest,
    handler: (messages: ReadonlyArray<Row>) =>
      Effect.andThen(Queue.offer(seen, messages.map(({ payload }) => payload)), handler(messages))
  })
  return { subscription, seen }
})

export const batchesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { advance, soon } = backend

  const settled = (subscription: Subscription.Subscription, count: number) =>
    until(backend, Effect.map(subscription.stats, ({ dead, processed }) => processed + dead >= count))

  describe("Subscription.batch", () => {
    test(
      "handles a full batch at once, in order, and acknowledges all of it",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({ size: 4, within: "1 hour" })
        yield* Publisher.publishAll(Rows, names(8))
        assert.deepStrictEqual(yield* soon(Queue.takeN(seen, 2)), [["r0", "r1", "r2", "r3"], ["r4", "r5", "r6", "r7"]])
        yield* settled(subscription, 8)
        assert.deepInclude(yield* subscription.stats, { processed: 8, failed: 0, held: 0 })
        assert.deepStrictEqual(yield* leftover(Rows), nothingLeft)
      })
    )

    test(
      "handles a batch that is not full `within` its first message, and not before",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({ size: 100, within: 200 })
        yield* Publisher.publish(Rows, "a")
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 1))
        yield* advance(100)
        yield* Publisher.publish(Rows, "b")
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 2))
        assert.strictEqual(yield* Queue.size(seen), 0)
        assert.deepStrictEqual(yield* soon(Queue.take(seen)), ["a", "b"])
        yield* settled(subscription, 2)
      })
    )

    test(
      "with `within: 0` handles what is there",
      Effect.gen(function*() {
        const { seen } = yield* collect({ size: 100, within: 0 })
        yield* Publisher.publish(Rows, "a")
        assert.deepStrictEqual(yield* soon(Queue.take(seen)), ["a"])
      })
    )

    test(
      "settles each message by its outcome, and acknowledges what has none",
      Effect.gen(function*() {
        const outcomes: Record<string, Batch.Outcome<Invalid | Down>> = {
          "acked": Batch.ack,
          "nacked": Batch.nack({ delay: 10 }),
          "late": Batch.later(10),
          "over": Batch.term("no good"),
          "invalid": Batch.fail(new Invalid({ message: "bad row" })),
          "down": Batch.fail(new Down({ message: "try again" }))
        }
        const again = yield* Queue.unbounded<readonly [string, number]>()
        const { subscription } = yield* collect({
          size: 7,
          within: 50,
          retry: Retry.make({ Invalid: Retry.term, Down: Retry.nack("15 millis") }),
          handler: Effect.fnUntraced(function*(messages: ReadonlyArray<Row>) {
            const out = new Map<Row, Batch.Outcome<Invalid | Down>>()
            for (const message of messages) {
              const outcome = message.deliveryCount === 1 ? outcomes[message.payload] : undefined
              if (outcome !== undefined) out.set(message, outcome)
              if (message.deliveryCount > 1) yield* Queue.offer(again, [message.payload, message.attempt])
            }
            return out
          })
        })
        yield* Publisher.publishAll(Rows, ["none", ...Object.keys(outcomes)])
        const second = yield* soon(Queue.takeN(again, 3))
        assert.deepStrictEqual(new Map(second), new Map([["nacked", 2], ["late", 1], ["down", 2]]))
        yield* settled(subscription, 7)
        assert.deepInclude(yield* subscription.stats, { processed: 5, dead: 2, failed: 2, retried: 2 })
        const dead = yield* letters
        assert.deepStrictEqual(
          new Map(dead.map(({ failure, payload }) => [
            JSON.parse(payload),
            [failure.reason, failure.errorTag, failure.message]
          ])),
          new Map([["invalid", ["term", "Invalid", "bad row"]], ["over", ["term", undefined, "no good"]]])
        )
        assert.deepStrictEqual(yield* leftover(Rows), nothingLeft)
      })
    )

    test(
      "a message that is settled by hand keeps this settlement",
      Effect.gen(function*() {
        const { subscription } = yield* collect({
          size: 3,
          handler: (messages) => Effect.andThen(messages[1]!.term("by hand"), Effect.fail(new Down({ message: "" }))),
          maxRetries: 0,
          within: 50
        })
        yield* Publisher.publishAll(Rows, ["a", "b", "c"])
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead >= 1))
        assert.strictEqual((yield* letters)[0]?.failure.message, "by hand")
        yield* subscription.drain
      })
    )

    test(
      "after a failure tries half as many, down to one, and only the bad message becomes a dead letter",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({
          size: 8,
          within: "1 hour",
          maxRetries: 5,
          handler: (messages) =>
            messages.some(({ payload }) => payload === "r5") ? Effect.fail(new Invalid({ message: "r5" })) : Effect.void
        })
        yield* Publisher.publishAll(Rows, names(8))
        yield* settled(subscription, 8)
        const sizes = (yield* Queue.clear(seen)).filter((batch) => batch.includes("r5")).map(({ length }) => length)
        assert.deepStrictEqual(sizes, [8, 4, 2, 1, 1, 1])
        const [letter, ...others] = yield* letters
        assert.lengthOf(others, 0)
        assert.deepInclude(letter, { payload: JSON.stringify("r5"), attempt: 6 })
        assert.deepInclude(letter?.failure, { reason: "exhausted", errorTag: "Invalid" })
        assert.deepInclude(yield* subscription.stats, { processed: 7, dead: 1 })
      })
    )

    test(
      "no message dies in company: neither of a policy that gives up at once, nor of its last attempt, nor of a defect",
      Effect.gen(function*() {
        const failing = (payload: string, effect: Effect.Effect<never, Invalid>) => (messages: ReadonlyArray<Row>) =>
          messages.some((message) => message.payload === payload) ? effect : Effect.void
        const kinds = [
          { retry: Retry.make({ Invalid: Retry.term }), effect: Effect.fail(new Invalid({ message: "" })) },
          { maxRetries: 0, effect: Effect.fail(new Invalid({ message: "" })) },
          { maxRetries: 2, effect: Effect.die(new Error("a bug")) }
        ]
        for (const [i, { effect, ...rest }] of kinds.entries()) {
          const { subscription } = yield* collect({
            ...rest,
            group: `g${i}`,
            size: 20,
            within: 20,
            handler: failing("r3", effect)
          })
          yield* Publisher.publishAll(Rows, names(20))
          yield* settled(subscription, 20)
          assert.deepInclude(yield* subscription.stats, { processed: 19, dead: 1 })
          yield* subscription.unsubscribe({ removeGroup: true })
        }
        const dead = yield* letters
        assert.deepStrictEqual(dead.map(({ payload }) => JSON.parse(payload)), ["r3", "r3", "r3"])
      })
    )

    test(
      "what fails in company is not tried with new messages",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({
          size: 2,
          within: 40,
          retryDelay: 1,
          handler: (messages) =>
            messages.some(({ payload }) => payload === "bad") ? Effect.fail(new Invalid({ message: "" })) : Effect.void
        })
        yield* Publisher.publishAll(Rows, ["bad", "a"])
        yield* soon(Queue.take(seen))
        yield* Publisher.publishAll(Rows, ["b", "c"])
        yield* settled(subscription, 4)
        assert.deepStrictEqual(
          (yield* Queue.clear(seen)).filter((batch) => batch.length > 1),
          [["b", "c"]]
        )
      })
    )

    test(
      "a payload that does not decode becomes a dead letter and never reaches the handler",
      Effect.gen(function*() {
        const seen = yield* Queue.unbounded<ReadonlyArray<number>>()
        const subscription = yield* Subscription.batch(Numbers, {
          size: 3,
          within: 50,
          handler: (messages) => Queue.offer(seen, messages.map(({ payload }) => payload)).pipe(Effect.asVoid)
        })
        yield* Publisher.publishAll(Anything, ["1", { no: "number" }, "3"])
        yield* settled(subscription, 3)
        assert.deepStrictEqual((yield* Queue.clear(seen)).flat(), [1, 3])
        assert.deepStrictEqual((yield* letters).map(({ failure }) => failure.reason), ["decode"])
      })
    )

    test(
      "an expired message and a duplicate never reach the handler",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({
          size: 10,
          within: 60,
          exactlyOnce: { key: ({ payload }) => payload },
          expired: "drop"
        })
        yield* subscription.pause
        yield* Publisher.publish(Rows, "stale", { expiresIn: 10 })
        yield* advance(40)
        yield* subscription.resume
        yield* Publisher.publishAll(Rows, ["a", "b"])
        assert.deepStrictEqual(yield* soon(Queue.take(seen)), ["a", "b"])
        yield* until(backend, Effect.map(subscription.stats, ({ expired, processed }) => processed + expired === 3))
        yield* Publisher.publishAll(Rows, ["a", "c"])
        assert.deepStrictEqual(yield* soon(Queue.take(seen)), ["c"])
        yield* until(backend, Effect.map(subscription.stats, (stats) => stats.processed + stats.duplicates === 4))
        assert.deepInclude(yield* subscription.stats, { processed: 3, duplicates: 1, expired: 1 })
      })
    )

    test(
      "runs `concurrency` batches at a time, and holds at most `size × concurrency + prefetch` messages",
      Effect.gen(function*() {
        const release = yield* Deferred.make<void>()
        let running = 0
        let most = 0
        const { subscription } = yield* collect({
          size: 5,
          within: 10,
          concurrency: 2,
          prefetch: 3,
          handler: () =>
            Effect.suspend(() => {
              most = Math.max(most, ++running)
              return Effect.ensuring(Deferred.await(release), Effect.sync(() => running--))
            })
        })
        yield* Publisher.publishAll(Rows, names(40))
        yield* until(backend, Effect.map(subscription.stats, ({ inFlight }) => inFlight === 2))
        yield* advance(50)
        const { held } = yield* subscription.stats
        assert.isAtMost(held, 13)
        assert.isAtLeast(held, 10)
        yield* Deferred.succeed(release, undefined)
        yield* settled(subscription, 40)
        assert.strictEqual(most, 2)
      })
    )

    test(
      "a batch that is not full keeps its places: nothing is fetched that would only wait behind it",
      Effect.gen(function*() {
        const release = yield* Deferred.make<void>()
        const { seen, subscription } = yield* collect({
          size: 10,
          within: 0,
          prefetch: 0,
          handler: () => Deferred.await(release)
        })
        yield* Publisher.publish(Rows, "first")
        yield* soon(Queue.take(seen))
        yield* Publisher.publishAll(Rows, names(20))
        yield* advance(50)
        assert.deepInclude(yield* subscription.stats, { held: 1, inFlight: 1 })
        yield* Deferred.succeed(release, undefined)
        yield* settled(subscription, 21)
      })
    )

    test(
      "renews the leases of a batch while it is collected and while it runs",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({
          size: 10,
          within: 500,
          lease: 150,
          handler: () => Effect.sleep(500)
        })
        yield* Publisher.publishAll(Rows, ["a", "b"])
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 2))
        const other = yield* collect({ size: 10, within: 0, lease: 150 })
        yield* settled(subscription, 2)
        assert.deepStrictEqual(yield* Queue.clear(seen), [["a", "b"]])
        assert.strictEqual(yield* Queue.size(other.seen), 0)
        assert.deepInclude(yield* subscription.stats, { lostLeases: 0, processed: 2 })
      })
    )

    test(
      "a batch that takes longer than `timeout` fails, and its messages come again alone",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({
          size: 2,
          within: 20,
          timeout: 40,
          handler: (messages) => messages.length > 1 ? Effect.never : Effect.void
        })
        yield* Publisher.publishAll(Rows, ["a", "b"])
        yield* settled(subscription, 2)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map(({ length }) => length), [2, 1, 1])
        assert.deepInclude(yield* subscription.stats, { failed: 2, processed: 2 })
      })
    )

    test(
      "an end lets a running batch finish, and gives back at once what is being collected",
      Effect.gen(function*() {
        const began = yield* Deferred.make<void>()
        const release = yield* Deferred.make<void>()
        const { subscription } = yield* collect({
          size: 2,
          within: "1 hour",
          prefetch: 1,
          handler: () => Effect.andThen(Deferred.succeed(began, undefined), Deferred.await(release))
        })
        yield* Publisher.publishAll(Rows, ["a", "b", "c"])
        yield* soon(Deferred.await(began))
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 3))
        const end = yield* Effect.forkChild(subscription.drain, { startImmediately: true })
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 2))
        yield* Deferred.succeed(release, undefined)
        yield* soon(Fiber.join(end))
        assert.deepInclude(yield* subscription.stats, { processed: 2, held: 0 })
        const next = yield* collect({ size: 1 })
        assert.deepStrictEqual(yield* soon(Queue.take(next.seen)), ["c"])
      })
    )

    test(
      "a pause gives back what is being collected, and a resume collects it again",
      Effect.gen(function*() {
        const { seen, subscription } = yield* collect({ size: 3, within: "1 hour" })
        yield* Publisher.publishAll(Rows, ["a", "b"])
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 2))
        yield* subscription.pause
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 0))
        yield* Publisher.publish(Rows, "c")
        yield* subscription.resume
        assert.deepStrictEqual((yield* soon(Queue.take(seen))).toSorted(), ["a", "b", "c"])
      })
    )

    test(
      "outcomes that would be lost fail the batch, and acknowledge nothing",
      Effect.gen(function*() {
        const wrong: ReadonlyArray<(messages: ReadonlyArray<Row>) => unknown> = [
          (messages) => messages.map(() => Batch.ack),
          () => Batch.term("all of it"),
          (messages) => new Map([[messages[0], "ack"]]),
          (messages) => new Map([[messages[0]!.id, Batch.ack]])
        ]
        for (const [i, result] of wrong.entries()) {
          const { subscription } = yield* collect({
            group: `wrong${i}`,
            size: 2,
            within: 20,
            maxRetries: 1,
            handler: (messages) => Effect.sync(() => result(messages)) as Effect.Effect<void>
          })
          yield* Publisher.publishAll(Rows, ["a", "b"])
          yield* settled(subscription, 2)
          assert.deepInclude(yield* subscription.stats, { processed: 0, dead: 2, failed: 4 })
          yield* subscription.unsubscribe({ removeGroup: true })
        }
        for (const { failure } of yield* letters) assert.include(failure.message, "the handler of a batch must return")
      })
    )

    test(
      "refuses by name what cannot be used",
      Effect.gen(function*() {
        const handler = () => Effect.void
        const refused = (options: object) =>
          Effect.map(
            Effect.flip(Subscription.batch(Rows, options as Subscription.BatchOptions<typeof Rows, never, never>)),
            (error) => error._tag === "InvalidSubscription" ? error.option : error._tag
          )
        assert.strictEqual(yield* refused({ handler }), "size")
        for (const size of [0, -1, 1.5, 10_001, "10", null]) {
          assert.strictEqual(yield* refused({ size, handler }), "size")
        }
        for (const within of [-1, Number.NaN, "soon", "2 hours"]) {
          assert.strictEqual(yield* refused({ size: 1, within, handler }), "within")
        }
        assert.strictEqual(yield* refused({ size: 1 }), "handler")
        assert.strictEqual(yield* refused({ size: 1, handler, ackMode: "manual" }), "ackMode")
        assert.strictEqual(yield* refused({ size: 1, handler, by: "key" }), "by")
        assert.strictEqual(yield* refused({ size: 201, handler, transactional: true }), "size")
        assert.strictEqual(yield* refused({ size: 100_000, concurrency: 100_000, handler }), "size")
      })
    )
  })

  describe("Subscription.batch: transactional", () => {
    const countOf = Effect.flatMap(Transaction.keyFor(Rows, "count"), Transaction.read)
    const incrby = (by: number) => Effect.flatMap(Transaction.key("count"), (key) => Transaction.incrby(key, by))

    test(
      "applies what a batch wrote and published together with all its acknowledgements",
      Effect.gen(function*() {
        const copies = yield* listen(Copies)
        const subscription = yield* Subscription.batch(Rows, {
          size: 3,
          within: 50,
          transactional: true,
          handler: Effect.fnUntraced(function*(messages) {
            yield* incrby(messages.length)
            for (const { payload } of messages) yield* Transaction.publish(Copies, payload)
          })
        })
        yield* Publisher.publishAll(Rows, names(7))
        yield* settled(subscription, 7)
        const copied = yield* soon(Queue.takeN(copies.seen, 7))
        assert.deepStrictEqual(copied.map(({ payload }) => payload).toSorted(), names(7))
        assert.strictEqual(yield* countOf, "7")
        assert.deepInclude(yield* subscription.stats, { processed: 7, failed: 0 })
        assert.deepStrictEqual(yield* leftover(Rows), nothingLeft)
      })
    )

    test(
      "applies nothing of a batch that failed or was refused, and everything of those that succeed",
      Effect.gen(function*() {
        const copies = yield* listen(Copies)
        const subscription = yield* Subscription.batch(Rows, {
          size: 4,
          within: 40,
          retryDelay,
          maxRetries: 3,
          transactional: true,
          handler: Effect.fnUntraced(function*(messages) {
            yield* incrby(messages.length)
            for (const { payload } of messages) yield* Transaction.publish(Copies, payload)
            if (messages.some(({ payload }) => payload === "r1")) return yield* Effect.fail(new Down({ message: "" }))
            if (messages.some(({ payload }) => payload === "r2")) {
              // No integer: the commit is refused.
              const key = yield* Transaction.key("text")
              yield* Transaction.set(key, "no number")
              yield* Transaction.incrby(key, 1)
            }
          })
        })
        yield* Publisher.publishAll(Rows, names(4))
        yield* settled(subscription, 4)
        yield* soon(copies.subscription.drain)
        assert.strictEqual(yield* countOf, "2")
        assert.deepInclude(yield* subscription.stats, { processed: 2, dead: 2 })
        assert.sameMembers((yield* letters).map(({ payload }) => JSON.parse(payload) as string), ["r1", "r2"])
        assert.deepStrictEqual((yield* Queue.clear(copies.seen)).map(({ payload }) => payload).toSorted(), ["r0", "r3"])
      })
    )

    test(
      "commits what is acknowledged, and settles the other outcomes by themselves",
      Effect.gen(function*() {
        const subscription = yield* Subscription.batch(Rows, {
          size: 4,
          within: 40,
          transactional: true,
          handler: Effect.fnUntraced(function*(messages) {
            const bad = messages.filter(({ payload }) => payload === "r2")
            yield* incrby(messages.length - bad.length)
            return new Map(bad.map((message) => [message, Batch.term("bad")]))
          })
        })
        yield* Publisher.publishAll(Rows, names(4))
        yield* settled(subscription, 4)
        assert.strictEqual(yield* countOf, "3")
        assert.deepInclude(yield* subscription.stats, { processed: 3, dead: 1 })
      })
    )

    test(
      "a lease that is lost before the commit: nothing is applied, and the rest comes again",
      Effect.gen(function*() {
        const lease = 300
        const broker = yield* Broker.Broker
        const began = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const stolen = yield* Deferred.make<string>()
        const finish = yield* Deferred.make<void>()
        const batches = yield* Queue.unbounded<ReadonlyArray<string>>()
        const options = { group: "g", lease, transactional: true } as const
        const batch = yield* Subscription.batch(Rows, {
          ...options,
          size: 3,
          within: 20,
          handler: Effect.fnUntraced(function*(messages) {
            yield* Queue.offer(batches, messages.map(({ payload }) => payload))
            yield* incrby(messages.length)
            yield* Deferred.succeed(began, undefined)
            yield* Deferred.await(go)
          })
        }).pipe(
          // Its leases are not renewed, and it does not know.
          Effect.provideService(Broker.Broker, {
            ...broker,
            join: (membership) =>
              Effect.map(broker.join(membership), (member) => ({ ...member, renew: () => Effect.succeed([]) }))
          })
        )
        yield* Publisher.publishAll(Rows, names(3))
        yield* soon(Deferred.await(began))
        const other = yield* Subscription.make(Rows, {
          ...options,
          prefetch: 0,
          handler: Effect.fnUntraced(function*({ payload }) {
            yield* Deferred.succeed(stolen, payload)
            yield* incrby(100)
            yield* Deferred.await(finish)
          })
        })
        const payload = yield* soon(Deferred.await(stolen))
        yield* Deferred.succeed(go, undefined)
        // Two are left, and come again with the next batch or alone.
        yield* until(backend, Effect.map(batch.stats, ({ lostLeases }) => lostLeases === 1))
        assert.isUndefined(yield* countOf)
        yield* other.pause
        yield* Deferred.succeed(finish, undefined)
        yield* until(
          backend,
          Effect.gen(function*() {
            return (yield* batch.stats).processed + (yield* other.stats).processed === 3
          })
        )
        assert.deepInclude(yield* other.stats, { processed: 1 })
        assert.strictEqual(yield* countOf, "102")
        const again = (yield* Queue.clear(batches)).slice(1).flat()
        assert.deepStrictEqual(again.toSorted(), names(3).filter((name) => name !== payload))
      })
    )

    test(
      "a batch has the messages of one shard",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const shards = yield* Queue.unbounded<number>()
        const subscription = yield* Subscription.batch(Channel.union(spread), {
          group: "g",
          size: 16,
          within: 50,
          transactional: true,
          handler: Effect.fnUntraced(function*(messages) {
            const key = yield* Transaction.key("spread")
            yield* Transaction.incrby(key, messages.length)
            const found = new Set(
              messages.map(({ channel }) => broker.shardsOf({ _tag: "Channels", names: [channel] })[0])
            )
            yield* Queue.offer(shards, found.size)
          })
        })
        for (const channel of spread) yield* Publisher.publish(channel, "x")
        yield* settled(subscription, 16)
        for (const count of yield* Queue.clear(shards)) assert.strictEqual(count, 1)
        assert.deepInclude(yield* subscription.stats, { processed: 16, failed: 0 })
      })
    )
  })

  describe("Subscription.batch: middleware", () => {
    test(
      "runs around each message: it changes what the handler gets, skips, fails, and sees each outcome",
      Effect.gen(function*() {
        const told = yield* Queue.unbounded<string>()
        const { seen, subscription } = yield* Effect.gen(function*() {
          const seen = yield* Queue.unbounded<ReadonlyArray<string>>()
          const subscription = yield* Subscription.batch(Rows, {
            size: 4,
            within: 50,
            retry: Retry.make({ Invalid: Retry.term, Down: Retry.term }),
            middleware: [
              Middleware.hooks({
                afterProcess: ({ payload }) => Queue.offer(told, `after ${String(payload)}`),
                onError: (failure) =>
                  failure.operation === "process"
                    ? Queue.offer(told, `error ${String(failure.message.payload)}`)
                    : Effect.void
              }),
              Middleware.process((next) => (message) => {
                if (message.payload === "skip") return Effect.void
                if (message.payload === "fail") return Effect.fail(new Invalid({ message: "before the handler" }))
                return next(Message.replace(message, { payload: `${String(message.payload)}!` }))
              })
            ],
            handler: Effect.fnUntraced(function*(messages: ReadonlyArray<Row>) {
              yield* Queue.offer(seen, messages.map(({ payload }) => payload))
              return new Map([[messages[1]!, Batch.fail(new Down({ message: "its own" }))]])
            })
          })
          return { seen, subscription }
        })
        yield* Publisher.publishAll(Rows, ["a", "skip", "fail", "b"])
        assert.deepStrictEqual(yield* soon(Queue.take(seen)), ["a!", "b!"])
        yield* settled(subscription, 4)
        assert.deepStrictEqual((yield* Queue.clear(told)).toSorted(), [
          "after a",
          "after skip",
          "error b",
          "error fail"
        ])
        assert.deepStrictEqual(
          (yield* letters).map(({ failure }) => failure.message).sort(),
          ["before the handler", "its own"]
        )
      })
    )

    test(
      "a message that never arrives at the handler does not hold up the others for ever",
      Effect.gen(function*() {
        const seen = yield* Queue.unbounded<number>()
        const subscription = yield* Subscription.batch(Rows, {
          size: 3,
          within: 50,
          maxRetries: 0,
          retryDelay,
          middleware: [
            Middleware.timeout("100 millis"),
            Middleware.process((next) => (message) => message.payload === "stuck" ? Effect.never : next(message))
          ],
          handler: (messages) => Effect.asVoid(Queue.offer(seen, messages.length))
        })
        yield* Publisher.publishAll(Rows, ["a", "stuck", "b"])
        yield* settled(subscription, 3)
        assert.deepStrictEqual((yield* letters).map(({ payload }) => JSON.parse(payload)).includes("stuck"), true)
      })
    )
  })

  describe("DeadLetters.requeue", () => {
    test(
      "brings a message back into full batches",
      Effect.gen(function*() {
        let isFixed = false
        const { seen, subscription } = yield* collect({
          size: 2,
          within: 30,
          maxRetries: 1,
          handler: () => isFixed ? Effect.void : Effect.fail(new Invalid({ message: "" }))
        })
        yield* Publisher.publishAll(Rows, ["a", "b"])
        yield* settled(subscription, 2)
        isFixed = true
        yield* Queue.clear(seen)
        yield* DeadLetters.requeueAll({}, { limit: 10 })
        yield* settled(subscription, 4)
        assert.deepStrictEqual((yield* Queue.clear(seen)).map((batch) => batch.toSorted()), [["a", "b"]])
      })
    )
  })
}
