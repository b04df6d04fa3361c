/** Ordering keys: the messages of one key are handled one after the other, in the order in which they were stored, whatever happens to them. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Queue, Schema, Stream } from "effect"
import { Broker, Channel, DeadLetters, type Message, Publisher, Scheduler, Subscription, Transaction } from "rotif"
import { type Backend, leftover, letters, listen, nothingLeft, promises, until } from "./kit.ts"

/** The first character of a payload is its key. */
const keyOf = (text: string) => text[0]!
const Text = Channel.make("ordering.texts", { payload: Schema.String, orderingKey: keyOf })
const Out = Channel.make("ordering.out", { payload: Schema.String, orderingKey: keyOf })
const Free = Channel.make("ordering.free", { payload: Schema.String })
const Notice = Channel.make("users.:userId.notices", {
  payload: Schema.String,
  orderingKey: (_, { userId }) => userId
})

const group = "g"

interface Step {
  readonly payload: string
  readonly is: "begin" | "end"
}

/** Notes when handlers begin and end. `during` runs between. */
const noting = <E = never, R = never>(
  during: (message: Message.Message<typeof Text>) => Effect.Effect<unknown, E, R> = () => Effect.void
) => {
  const steps: Array<Step> = []
  const handler = (message: Message.Message<typeof Text>) =>
    Effect.suspend(() => {
      const { payload } = message
      steps.push({ payload, is: "begin" })
      return Effect.ensuring(during(message), Effect.sync(() => steps.push({ payload, is: "end" })))
    })
  const begun = (key?: string) =>
    steps.filter(({ is, payload }) => is === "begin" && (key === undefined || keyOf(payload) === key))
      .map(({ payload }) => payload)
  return { handler, steps, begun }
}

/** Fails where two messages of a key were handled at the same time. */
const assertOneAtATime = (steps: ReadonlyArray<Step>) => {
  const running = new Map<string, string>()
  for (const { is, payload } of steps) {
    const key = keyOf(payload)
    if (is === "begin") assert.isUndefined(running.get(key), `${payload} began while ${running.get(key)} was handled`)
    if (is === "begin") running.set(key, payload)
    else running.delete(key)
  }
}

const numbered = (key: string, count: number) => Array.from({ length: count }, (_, i) => `${key}${i}`)

export const orderingSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  const processed = (subscriptions: ReadonlyArray<Subscription.Subscription>, count: number) =>
    until(
      backend,
      Effect.map(
        Effect.forEach(subscriptions, ({ stats }) => stats),
        (all) => all.reduce((sum, { processed }) => sum + processed, 0) >= count
      )
    )

  describe("ordering: block", () => {
    test(
      "handles the messages of a key one at a time and in order, over two consumers",
      Effect.gen(function*() {
        const { begun, handler, steps } = noting(() => Effect.sleep(1))
        const options = { group, handler, concurrency: 4 }
        const one = yield* listen(Text, options)
        const keys = ["a", "b", "c"]
        const texts = Array.from({ length: 20 }, (_, i) => keys.map((key) => `${key}${i}`)).flat()
        yield* Publisher.publishAll(Text, texts.slice(0, 30))
        const two = yield* listen(Text, options)
        for (const text of texts.slice(30)) yield* Publisher.publish(Text, text)
        yield* processed([one.subscription, two.subscription], texts.length)
        assertOneAtATime(steps)
        for (const key of keys) assert.deepStrictEqual(begun(key), numbered(key, 20))
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "keys go on beside each other: a message that waits takes no place of a handler",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          group,
          concurrency: 2,
          handler: ({ payload }) => payload === "a0" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2", "b0", "b1", "c0"])
        const first = yield* soon(Queue.takeN(seen, 4))
        assert.sameMembers(first.map(({ payload }) => payload), ["a0", "b0", "b1", "c0"])
        // What waits is pending, as what is handled.
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 3))
        assert.deepInclude(yield* leftover(Text), { unread: 0, ready: 0 })
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload), ["a1", "a2"])
        yield* processed([subscription], 6)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a message that is retried keeps its place, and its key waits",
      Effect.gen(function*() {
        const { begun, handler } = noting((message) =>
          message.payload === "a0" && message.attempt < 3 ? Effect.fail("not yet") : Effect.void
        )
        const { seen, subscription } = yield* listen(Text, { group, handler, concurrency: 4, retryDelay: 30 })
        yield* Publisher.publishAll(Text, ["a0", "a1", "b0", "a2"])
        yield* processed([subscription], 4)
        assert.deepStrictEqual(begun("a"), ["a0", "a0", "a0", "a1", "a2"])
        assert.deepStrictEqual(begun().slice(0, 2).toSorted(), ["a0", "b0"])
        const messages = yield* Queue.clear(seen)
        assert.deepStrictEqual(
          messages.filter(({ payload }) => payload === "a0").map(({ attempt, orderingKey }) => [attempt, orderingKey]),
          [[1, "a"], [2, "a"], [3, "a"]]
        )
        // A fence grows along a key.
        const fences = messages.filter(({ payload }) => keyOf(payload) === "a").map(({ fence }) => fence)
        assert.deepStrictEqual(fences, [...new Set(fences)].toSorted())
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    const atOnce: ReadonlyArray<
      readonly [string, (message: Message.Message<typeof Text>) => Effect.Effect<void, unknown>]
    > = [
      ["nack", (message) => message.attempt < 3 ? message.nack() : message.ack],
      ["nack with a delay", (message) => message.attempt < 3 ? message.nack({ delay: 20 }) : message.ack],
      ["release", (message) => message.deliveryCount < 3 ? message.release : message.ack]
    ]
    for (const [what, settle] of atOnce) {
      test(
        `a message that comes again by ${what} keeps its place`,
        Effect.gen(function*() {
          const { begun, handler } = noting((message) => message.payload === "a0" ? settle(message) : message.ack)
          const options = { group, handler, concurrency: 4, ackMode: "manual" } as const
          const one = yield* listen(Text, options)
          const two = yield* listen(Text, options)
          yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
          yield* processed([one.subscription, two.subscription], 3)
          assert.deepStrictEqual(begun(), ["a0", "a0", "a0", "a1", "a2"])
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        })
      )
    }

    const ends: ReadonlyArray<
      readonly [
        string,
        reason: string | undefined,
        Partial<Subscription.Options<typeof Text, string | Message.LeaseLost, never>>,
        first: Effect.Effect<unknown, unknown, Broker.Broker | Publisher.Publisher>
      ]
    > = [
      ["exhausted", "exhausted", { maxRetries: 1, retryDelay: 10 }, Publisher.publish(Text, "a0 fail")],
      ["ended by its handler", "term", {}, Publisher.publish(Text, "a0 term")],
      [
        "not decoded",
        "decode",
        {},
        Broker.Broker.use((broker) =>
          broker.append([{ id: "bad", channel: Text.name, payload: "5", orderingKey: "a" }])
        )
      ],
      ["expired", "expired", {}, Publisher.publish(Text, "a0", { expiresIn: 1 })],
      ["expired and dropped", undefined, { expired: "drop" }, Publisher.publish(Text, "a0", { expiresIn: 1 })]
    ]
    for (const [what, reason, options, first] of ends) {
      test(
        `a message that is ${what} lets the next one go on`,
        Effect.gen(function*() {
          yield* first
          yield* Publisher.publishAll(Text, ["a1", "a2"])
          yield* backend.advance(5)
          const { begun, handler } = noting<string | Message.LeaseLost>(({ payload, term }) =>
            payload.endsWith("fail") ? Effect.fail("no") : payload.endsWith("term") ? term("no") : Effect.void
          )
          const { seen } = yield* listen(Text, { group, concurrency: 4, ...options, handler })
          yield* soon(Effect.repeat(Queue.take(seen), { until: ({ payload }) => payload === "a2" }))
          assert.deepStrictEqual(begun().slice(-2), ["a1", "a2"])
          assert.deepStrictEqual(
            (yield* letters).map(({ failure, orderingKey }) => [failure.reason, orderingKey]),
            reason === undefined ? [] : [[reason, "a"]]
          )
          yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 0))
        })
      )
    }

    test(
      "a dead letter that is requeued goes behind what waits for its key",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        let isFixed = false
        const { seen, subscription } = yield* listen(Text, {
          group,
          concurrency: 4,
          maxRetries: 0,
          handler: ({ payload }) =>
            Effect.suspend(() => payload !== "a0" || isFixed ? Effect.void : Effect.fail("no")).pipe(
              Effect.andThen(payload === "a1" ? Deferred.await(gate) : Effect.void)
            )
        })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        yield* soon(Queue.takeN(seen, 2))
        // `a2` waits.
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 2))
        isFixed = true
        const [letter] = yield* letters
        assert.strictEqual(letter?.orderingKey, "a")
        yield* DeadLetters.requeueAll({ group }, { limit: 1 })
        yield* Publisher.publish(Text, "b0")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "b0")
        // It was read, and waits.
        yield* until(backend, Effect.map(leftover(Text), ({ pending, ready }) => pending === 3 && ready === 0))
        yield* Deferred.succeed(gate, undefined)
        const rest = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(rest.map(({ orderingKey, payload }) => [payload, orderingKey]), [
          ["a2", "a"],
          ["a0", "a"]
        ])
        yield* processed([subscription], 4)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a dead letter that is requeued to a key without messages is handled, and holds up the next one",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          group,
          concurrency: 4,
          maxRetries: 0,
          handler: ({ deliveryCount, payload }) =>
            payload !== "a0" ? Effect.void : deliveryCount === 1 ? Effect.fail("no") : Deferred.await(gate)
        })
        yield* Publisher.publish(Text, "a0")
        yield* soon(Queue.take(seen))
        yield* until(backend, Effect.map(letters, ({ length }) => length === 1))
        yield* DeadLetters.requeueAll({ group }, { limit: 1 })
        yield* soon(Queue.take(seen))
        yield* Publisher.publishAll(Text, ["a1", "b0"])
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "b0")
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a1")
        yield* processed([subscription], 3)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a scheduled message takes its place when it becomes due",
      Effect.gen(function*() {
        const { begun, handler } = noting()
        const { seen, subscription } = yield* listen(Text, { group, handler, concurrency: 4 })
        yield* Publisher.publish(Text, "a1", { delay: 60 })
        yield* Publisher.publish(Text, "a0")
        yield* soon(Effect.repeat(Queue.take(seen), { until: ({ payload }) => payload === "a1" }))
        yield* Publisher.publish(Text, "a2")
        yield* processed([subscription], 3)
        assert.deepStrictEqual(begun(), ["a0", "a1", "a2"])
      })
    )

    test(
      "a key and no key live in one channel: messages without one wait for nothing",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          group,
          concurrency: 2,
          handler: ({ payload }) => payload === "a0" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        yield* Publisher.publish(Text, "a-none", { orderingKey: null })
        const messages = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual(messages.map(({ orderingKey, payload }) => [payload, orderingKey]), [
          ["a0", "a"],
          ["a-none", undefined]
        ])
        yield* Publisher.publish(Text, "b0", { orderingKey: "a" })
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual((yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload), ["a1", "b0"])
        yield* processed([subscription], 4)
      })
    )

    test(
      "keys are of one channel: the same key in another channel waits for nothing",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Channel.union([Text, Out]), {
          group,
          concurrency: 2,
          handler: ({ payload }) => payload === "a0" ? Deferred.await(gate) : Effect.void
        })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        yield* Publisher.publish(Out, "a2")
        assert.sameMembers((yield* soon(Queue.takeN(seen, 2))).map(({ payload }) => payload), ["a0", "a2"])
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a1")
      })
    )
  })

  describe("ordering: block, when consumers end", () => {
    /** Long enough that nothing is taken over by its end. */
    const lease = "10 minutes"
    const elapsed = (since: number) => Effect.map(Clock.currentTimeMillis, (now) => now - since)

    test(
      "a drain hands on what waits at once",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const since = yield* Clock.currentTimeMillis
        const one = yield* listen(Text, {
          group,
          lease,
          concurrency: 1,
          prefetch: 10,
          handler: () => Deferred.await(gate)
        })
        // `a0` is handled, `b0` waits here for a handler, and the others wait behind them.
        yield* Publisher.publishAll(Text, ["a0", "b0", "a1", "b1"])
        yield* soon(Queue.take(one.seen))
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 4))
        const { begun, handler, steps } = noting(() => Effect.sleep(1))
        const two = yield* listen(Text, { group, lease, handler, concurrency: 4 })
        const draining = yield* Effect.forkChild(one.subscription.drain, { startImmediately: true })
        // What waited at the first consumer goes on at once, though its handler has not ended.
        yield* soon(Queue.takeN(two.seen, 2))
        assert.deepStrictEqual(begun("b"), ["b0", "b1"])
        yield* Deferred.succeed(gate, undefined)
        yield* processed([two.subscription], 3)
        yield* soon(Fiber.join(draining))
        assert.deepStrictEqual(begun("a"), ["a1"])
        assertOneAtATime(steps)
        assert.isBelow(yield* elapsed(since), 60_000)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a handler that is interrupted by the end keeps its place",
      Effect.gen(function*() {
        const one = yield* listen(Text, { group, lease, drainTimeout: 1, handler: () => Effect.never })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        yield* soon(Queue.take(one.seen))
        yield* soon(one.subscription.drain)
        const { begun, handler } = noting()
        const two = yield* listen(Text, { group, lease, handler, concurrency: 4 })
        yield* processed([two.subscription], 2)
        assert.deepStrictEqual(begun(), ["a0", "a1"])
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "a consumer that is paused takes nothing over: another one goes on",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const one = yield* listen(Text, { group, lease, concurrency: 4, handler: () => Deferred.await(gate) })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        yield* soon(Queue.take(one.seen))
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 3))
        yield* soon(one.subscription.pause)
        const two = yield* listen(Text, { group, lease, concurrency: 4 })
        yield* Deferred.succeed(gate, undefined)
        const messages = yield* soon(Queue.takeN(two.seen, 2))
        assert.deepStrictEqual(messages.map(({ deliveryCount, payload }) => [payload, deliveryCount]), [
          ["a1", 1],
          ["a2", 1]
        ])
        assert.strictEqual(yield* Queue.size(one.seen), 0)
        yield* processed([one.subscription, two.subscription], 3)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "one consumer alone goes on after its pause where it was",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { begun, handler } = noting(() => Deferred.await(gate))
        const { seen, subscription } = yield* listen(Text, { group, lease, concurrency: 4, handler })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        yield* soon(Queue.take(seen))
        yield* soon(subscription.pause)
        yield* Deferred.succeed(gate, undefined)
        yield* processed([subscription], 1)
        yield* backend.advance(50)
        assert.deepStrictEqual(begun(), ["a0"])
        yield* subscription.resume
        yield* processed([subscription], 3)
        assert.deepStrictEqual(begun(), ["a0", "a1", "a2"])
      })
    )

    test(
      "a group that is removed and made again begins with open keys",
      Effect.gen(function*() {
        const one = yield* listen(Text, { group, concurrency: 4, handler: () => Effect.never })
        yield* Publisher.publishAll(Text, ["a0", "a1"])
        yield* soon(Queue.take(one.seen))
        yield* until(backend, Effect.map(leftover(Text), ({ pending }) => pending === 2))
        const broker = yield* Broker.Broker
        yield* broker.removeGroup(group, Channel.selector(Text))
        yield* soon(Effect.flip(one.subscription.ended))
        const { begun, handler } = noting()
        const two = yield* listen(Text, { group, handler, startFrom: { position: "0-0" }, concurrency: 4 })
        yield* Publisher.publish(Text, "a2")
        yield* soon(Effect.repeat(Queue.take(two.seen), { until: ({ payload }) => payload === "a2" }))
        assert.deepStrictEqual(begun(), ["a0", "a1", "a2"])
      })
    )
  })

  describe("ordering: block, beside other features", () => {
    test(
      "exactlyOnce: copies of a key are acknowledged in their places",
      Effect.gen(function*() {
        const { begun, handler, steps } = noting(() => Effect.sleep(1))
        const options = {
          group,
          handler,
          concurrency: 4,
          exactlyOnce: { key: ({ payload }: Message.Message<typeof Text>) => payload }
        }
        const one = yield* listen(Text, options)
        const two = yield* listen(Text, options)
        yield* Publisher.publishAll(Text, ["a0", "a1", "a0", "b0", "a2", "a1", "a3"])
        yield* until(
          backend,
          Effect.map(
            Effect.all([one.subscription.stats, two.subscription.stats]),
            (all) => all.reduce((sum, { duplicates, processed }) => sum + duplicates + processed, 0) === 7
          )
        )
        assert.deepStrictEqual(begun("a"), ["a0", "a1", "a2", "a3"])
        assertOneAtATime(steps)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "transactional: each message begins when the transaction of the one before is applied, and its messages keep their keys",
      Effect.gen(function*() {
        const { begun, handler, steps } = noting(({ payload }) =>
          Effect.gen(function*() {
            const key = yield* Transaction.key("last")
            const before = yield* Transaction.read(key)
            yield* Transaction.set(key, payload)
            yield* Transaction.publish(Out, payload)
            return yield* payload === "a0" || before === `a${Number(payload[1]) - 1}`
              ? Effect.void
              : Effect.fail("early")
          })
        )
        const options = { group, handler, concurrency: 4, transactional: true, maxRetries: 0 } as const
        const one = yield* listen(Text, options)
        const two = yield* listen(Text, options)
        const texts = numbered("a", 8)
        yield* Publisher.publishAll(Text, texts)
        yield* processed([one.subscription, two.subscription], 8)
        assert.deepStrictEqual(begun(), texts)
        assertOneAtATime(steps)
        const out = yield* listen(Out, { concurrency: 4 })
        const messages = yield* soon(Queue.takeN(out.seen, 8))
        assert.deepStrictEqual(
          messages.map(({ orderingKey, payload }) => [payload, orderingKey]),
          texts.map((text) => [text, "a"])
        )
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "Subscription.stream: the next message of a key comes when the one before is settled",
      Effect.gen(function*() {
        yield* Publisher.publishAll(Text, ["a0", "a1", "b0"])
        const seen = yield* Queue.unbounded<Message.StreamMessage<typeof Text>>()
        yield* Effect.forkScoped(Stream.runForEach(
          Subscription.stream(Text, { group, retryDelay: 10 }),
          (message) => Queue.offer(seen, message)
        ))
        const [a0, b0] = yield* soon(Queue.takeN(seen, 2))
        assert.deepStrictEqual([a0?.payload, b0?.payload], ["a0", "b0"])
        yield* soon(a0!.fail("no"))
        const again = yield* soon(Queue.take(seen))
        assert.deepInclude([again.payload, again.attempt], "a0")
        yield* soon(again.ack)
        const a1 = yield* soon(Queue.take(seen))
        assert.strictEqual(a1.payload, "a1")
        yield* soon(Effect.all([a1.ack, b0!.ack]))
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("ordering: none", () => {
    test(
      "the key has no meaning",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group,
          ordering: "none",
          concurrency: 4,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, ["a0", "a1", "a2"])
        const messages = yield* soon(Queue.takeN(seen, 3))
        assert.deepStrictEqual(messages.map(({ orderingKey, payload }) => [payload, orderingKey]), [
          ["a0", "a"],
          ["a1", "a"],
          ["a2", "a"]
        ])
        yield* Deferred.succeed(gate, undefined)
      })
    )

    test(
      "the first subscription of a group decides: another one with another setting is refused, until the group is removed",
      Effect.gen(function*() {
        const first = yield* listen(Text, { group, ordering: "none" })
        const error = yield* Effect.flip(Effect.scoped(listen(Text, { group })))
        assert.strictEqual(error._tag, "InvalidSubscription")
        assert.deepInclude(error, { option: "ordering" })
        assert.match(error.message, /group "g" has ordering "none", not "block"/)
        // Also on another channel, and when nobody of the group is there.
        yield* soon(first.subscription.drain)
        assert.strictEqual((yield* Effect.flip(Effect.scoped(listen(Text, { group }))))._tag, "InvalidSubscription")
        yield* listen(Text, { group: "other" })
        assert.deepStrictEqual((yield* Subscription.running).map(({ group }) => group), ["other"])
        const broker = yield* Broker.Broker
        yield* broker.removeGroup(group, Channel.selector(Text))
        const { seen } = yield* listen(Text, { group })
        yield* Publisher.publish(Text, "a0")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "a0")
      })
    )
  })

  describe("orderingKey", () => {
    test(
      "comes with the message, however it was stored",
      Effect.gen(function*() {
        const { seen } = yield* listen(Free, { group, concurrency: 10 })
        const noticed = yield* listen(Notice, { group, concurrency: 10 })
        const orderingKey = "k"
        yield* Publisher.publish(Free, "plain", { orderingKey })
        yield* Publisher.publish(Free, "by id", { orderingKey, id: "own" })
        yield* Publisher.publish(Free, "throttled", { orderingKey, throttle: { key: "t", window: 1000 } })
        yield* Publisher.publish(Free, "debounced", { orderingKey: "old", debounce: { key: "d", delay: 20 } })
        yield* Publisher.publish(Free, "debounced", { orderingKey, debounce: { key: "d", delay: 20 } })
        yield* Publisher.publishAll(Free, ["batch", "batch"], { orderingKey })
        yield* Publisher.publishAll(Free, ["each"], () => ({ orderingKey, headers: { h: "1" } }))
        yield* Publisher.publish(Free, "scheduled", { orderingKey, delay: 30 })
        const { messages } = yield* Scheduler.list({ channel: Free })
        assert.deepStrictEqual(messages.map((message) => message.orderingKey), ["k", "k"])
        yield* Scheduler.recurring("tick", { every: "50 millis" }, Free, "tick", { orderingKey })
        assert.deepStrictEqual((yield* Scheduler.listRecurring).map((message) => message.orderingKey), ["k"])
        const wanted = ["plain", "by id", "throttled", "debounced", "batch", "batch", "each", "scheduled", "tick"]
        const found: Array<readonly [string, string | undefined]> = []
        while (!wanted.every((text) => found.some(([payload]) => payload === text))) {
          const { orderingKey, payload } = yield* soon(Queue.take(seen))
          found.push([payload, orderingKey])
        }
        assert.deepStrictEqual(new Set(found.map(([, key]) => key)), new Set(["k"]))
        yield* Publisher.publish(Notice, "hi", { params: { userId: "u-7" } })
        assert.strictEqual((yield* soon(Queue.take(noticed.seen))).orderingKey, "u-7")
        yield* Publisher.publish(Free, "none")
        const none = yield* soon(Effect.repeat(Queue.take(seen), { until: ({ payload }) => payload === "none" }))
        assert.isUndefined(none.orderingKey)
      })
    )

    const wrong: ReadonlyArray<readonly [string, (payload: string) => string | null, RegExp]> = [
      ["throws", () => assert.fail("no user"), /orderingKey.*no user/s],
      ["gives nothing", () => undefined as unknown as string, /orderingKey.*1 to 512 bytes.*undefined/s],
      ["gives an empty text", () => "", /orderingKey.*1 to 512 bytes/s],
      ["gives more than 512 bytes", () => "ä".repeat(257), /orderingKey.*1 to 512 bytes.*514/s],
      ["gives half of a surrogate pair", () => "\ud800", /orderingKey.*well-formed/s]
    ]
    for (const [what, rule, message] of wrong) {
      test(
        `a publish is refused when the function of its channel ${what}, and nothing is stored`,
        Effect.gen(function*() {
          const Wrong = Channel.make("ordering.wrong", { payload: Schema.String, orderingKey: rule })
          const broker = yield* Broker.Broker
          const refused = [
            yield* Effect.flip(Publisher.publish(Wrong, "x")),
            yield* Effect.flip(Publisher.publishAll(Wrong, ["x"])),
            yield* Effect.flip(Publisher.publish(Wrong, "x", { delay: 1000 }))
          ]
          for (const error of refused) {
            assert.strictEqual(error._tag, "InvalidPublishOptions")
            assert.match(error.message, message)
          }
          const info = yield* broker.info(Channel.selector(Wrong))
          assert.deepStrictEqual([info.channels.flatMap(({ length }) => length), info.waiting], [[], 0])
          // The key of the call counts before that of the channel.
          yield* Publisher.publish(Wrong, "x", { orderingKey: "own" })
          yield* Publisher.publish(Wrong, "x", { orderingKey: null })
        })
      )
    }

    test(
      "has any characters, and up to 512 bytes",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Free, { group, concurrency: 10 })
        const keys = [" ", "\n", "a\nb", "\u0000", "ä".repeat(256), "~gate", "{x}", "1-0", "a:b"]
        for (const orderingKey of keys) {
          yield* Publisher.publishAll(Free, ["1", "2"], { orderingKey })
        }
        const messages = yield* soon(Queue.takeN(seen, keys.length * 2))
        assert.sameMembers(messages.map(({ orderingKey }) => orderingKey!), [...keys, ...keys])
        yield* processed([subscription], keys.length * 2)
        assert.deepStrictEqual(yield* leftover(Free), nothingLeft)
      })
    )
  })
}
