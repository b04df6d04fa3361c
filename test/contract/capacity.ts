/** Capacity: how many messages a consumer holds, how many handlers run, and that no message waits behind a handler that does not end. */
import { assert, describe } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Queue, Schema } from "effect"
import type { Subscription } from "rotif"
import { Broker, Channel, Publisher } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Many = Channel.pattern("many.*", { payload: Schema.String })
const many = (count: number) =>
  Array.from({ length: count }, (_, i) => Channel.make(`many.${i}`, { payload: Schema.String }))
const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i))

/** Records the number of held messages whenever a handler begins or ends. */
const watching = () => {
  let subscription: Subscription.Subscription | undefined
  let most = 0
  const look = Effect.suspend(() =>
    subscription === undefined ? Effect.void : Effect.map(subscription.stats, ({ held }) => {
      most = Math.max(most, held)
    })
  )
  return {
    most: () => most,
    look,
    of: (one: Subscription.Subscription) => {
      subscription = one
    }
  }
}

export const capacitySuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  /** At most this long may a message wait behind a handler, on a busy machine. */
  const bound = backend.clock === "live" ? 2_000 : 500
  const lease = 60_000

  describe("Subscription.make: capacity", () => {
    test(
      "holds one message of 300 channels where one may be held, and comes to all of them",
      Effect.gen(function*() {
        const channels = many(300)
        yield* Effect.forEach(channels, (channel) => Publisher.publish(channel, "x"), { concurrency: 50 })
        const watch = watching()
        const { seen, subscription } = yield* listen(Many, {
          concurrency: 1,
          prefetch: 0,
          handler: () => Effect.andThen(watch.look, Effect.andThen(Effect.yieldNow, watch.look))
        })
        watch.of(subscription)
        const messages = yield* soon(Queue.takeN(seen, 300))
        assert.strictEqual(new Set(messages.map(({ channel }) => channel)).size, 300)
        assert.strictEqual(watch.most(), 1)
        yield* soon(subscription.drain)
        assert.deepStrictEqual(yield* leftover(Many), nothingLeft)
      })
    )

    for (const [concurrency, prefetch, channels] of [[1, 0, 3], [4, 3, 1], [4, 3, 12], [3, 20, 40]] as const) {
      test(
        `never holds more than ${concurrency} + ${prefetch} of ${channels} channels, whatever comes back`,
        Effect.gen(function*() {
          const each = Math.ceil(120 / channels)
          const total = each * channels
          const watch = watching()
          let running = 0
          let mostRunning = 0
          const { subscription } = yield* listen(Many, {
            concurrency,
            prefetch,
            retryDelay: 1,
            handler: Effect.fnUntraced(function*({ attempt, deliveryCount, payload, release }) {
              mostRunning = Math.max(mostRunning, ++running)
              yield* watch.look
              yield* Effect.yieldNow
              yield* watch.look
              running--
              if (Number(payload) % 5 === 0 && deliveryCount === 1) return yield* release
              if (Number(payload) % 7 === 1 && attempt === 1) return yield* Effect.fail("again")
            })
          })
          watch.of(subscription)
          yield* Effect.forEach(many(channels), (channel) => Publisher.publishAll(channel, numbers(each)), {
            concurrency: 8
          })
          yield* until(
            backend,
            Effect.andThen(watch.look, Effect.map(subscription.stats, ({ processed }) => processed >= total))
          )
          assert.isAtMost(watch.most(), concurrency + prefetch)
          assert.strictEqual(mostRunning, concurrency)
          yield* soon(subscription.drain)
          assert.deepStrictEqual(yield* leftover(Many), nothingLeft)
        })
      )
    }

    test(
      "holds nothing behind slow handlers by default, and feeds fast ones in batches",
      Effect.gen(function*() {
        const watch = watching()
        const { seen, subscription } = yield* listen(Text, {
          concurrency: 2,
          handler: ({ payload }) =>
            Effect.andThen(watch.look, payload === "slow" ? Effect.andThen(Effect.sleep(200), watch.look) : Effect.void)
        })
        watch.of(subscription)
        yield* Publisher.publishAll(Text, Array.from({ length: 10 }, () => "slow"))
        yield* soon(Queue.takeN(seen, 10))
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 0))
        assert.strictEqual(watch.most(), 2)
        yield* Publisher.publishAll(Text, numbers(400))
        yield* soon(Queue.takeN(seen, 400))
        assert.isAbove(watch.most(), 10)
        assert.isAtMost(watch.most(), 102)
      })
    )

    test(
      "goes on with seven places of eight while one is taken by a handler that does not end",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        let running = 0
        let most = 0
        const { seen, subscription } = yield* listen(Many, {
          concurrency: 8,
          handler: ({ payload }) =>
            payload === "stuck" ? Deferred.await(gate) : Effect.gen(function*() {
              most = Math.max(most, ++running)
              yield* Effect.sleep(5)
              running--
            })
        })
        yield* Publisher.publish(many(1)[0]!, "stuck")
        yield* soon(Queue.take(seen))
        yield* Effect.forEach(many(3), (channel) => Publisher.publishAll(channel, numbers(100)))
        yield* soon(Queue.takeN(seen, 300))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 300))
        assert.strictEqual(most, 7)
        yield* Deferred.succeed(gate, undefined)
      })
    )

    for (
      const [title, options] of [
        ["by default", {}],
        ["with a prefetch", { prefetch: 50 }],
        ["exactly once", { prefetch: 50, exactlyOnce: true }],
        ["in a transaction", { transactional: true }]
      ] as const
    ) {
      test(
        `lets no message wait behind a handler that does not end while another consumer is free: ${title}`,
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const waits: Array<number> = []
          const counts = new Map<string, number>()
          let publishedAt = 0
          const handler = Effect.fnUntraced(function*({ deliveryCount, payload }: {
            readonly payload: string
            readonly deliveryCount: number
          }) {
            if (payload === "stuck") return yield* Deferred.await(gate)
            if (!payload.startsWith("short")) return
            counts.set(payload, deliveryCount)
            waits.push((yield* Clock.currentTimeMillis) - publishedAt)
          })
          const first = yield* listen(Text, { group: "g", lease, ...options, handler })
          // By now it expects fast handlers.
          yield* Publisher.publishAll(Text, numbers(300))
          yield* soon(Queue.takeN(first.seen, 300))
          yield* until(backend, Effect.map(first.subscription.stats, ({ held }) => held === 0))
          publishedAt = yield* Clock.currentTimeMillis
          yield* Publisher.publishAll(Text, ["stuck", ...Array.from({ length: 40 }, (_, i) => `short ${i}`)])
          yield* soon(Queue.take(first.seen))
          // It arrives while all of them wait.
          const second = yield* listen(Text, { group: "g", lease, ...options, handler })
          yield* until(backend, Effect.sync(() => waits.length === 40))
          assert.isAtMost(Math.max(...waits), bound)
          for (const count of counts.values()) assert.isAtMost(count, 3)
          assert.deepInclude(yield* first.subscription.stats, { held: 1, inFlight: 1, lostLeases: 0 })
          yield* Deferred.succeed(gate, undefined)
          yield* soon(first.subscription.drain)
          yield* soon(second.subscription.drain)
          assert.deepInclude(yield* second.subscription.stats, { lostLeases: 0, crashed: 0, duplicates: 0 })
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        })
      )
    }

    test(
      "gives back what waits once, not again and again, while no consumer has a place",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const counts: Array<number> = []
        const handler = Effect.fnUntraced(function*({ deliveryCount }: { readonly deliveryCount: number }) {
          counts.push(deliveryCount)
          yield* Deferred.await(gate)
        })
        const options = { group: "g", lease, prefetch: 5, handler }
        const first = yield* listen(Text, options)
        yield* Publisher.publishAll(Text, numbers(4))
        yield* until(backend, Effect.map(first.subscription.stats, ({ held }) => held === 4))
        const second = yield* listen(Text, options)
        yield* Publisher.publishAll(Text, numbers(4))
        yield* soon(Queue.take(second.seen))
        yield* backend.advance("3 seconds")
        for (const { subscription } of [first, second]) {
          assert.deepInclude(yield* subscription.stats, { held: 1, inFlight: 1 })
        }
        yield* Deferred.succeed(gate, undefined)
        yield* until(backend, Effect.sync(() => counts.length === 8))
        assert.isAtMost(Math.max(...counts), 3)
        yield* soon(first.subscription.drain)
        yield* soon(second.subscription.drain)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "keeps what waits, in order, where the others of the group read other channels",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          lease,
          prefetch: 5,
          handler: ({ payload }) => payload === "0" ? Deferred.await(gate) : Effect.void
        })
        yield* listen(Many, { group: "g", lease })
        yield* Publisher.publishAll(Text, numbers(4))
        yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 4))
        yield* backend.advance("1 second")
        assert.strictEqual((yield* subscription.stats).held, 4)
        yield* Deferred.succeed(gate, undefined)
        const messages = yield* soon(Queue.takeN(seen, 4))
        assert.deepStrictEqual(messages.map(({ deliveryCount, payload }) => [payload, deliveryCount]), [
          ["0", 1],
          ["1", 1],
          ["2", 1],
          ["3", 1]
        ])
      })
    )

    test(
      "shares slow work among consumers as the ideal schedule would",
      Effect.gen(function*() {
        const millis = 400
        const [workers, concurrency, rounds] = [3, 4, 4]
        const options = { group: "g", concurrency, handler: () => Effect.sleep(millis) }
        const all = yield* Effect.forEach(Array.from({ length: workers }), () => listen(Text, options))
        const since = yield* Clock.currentTimeMillis
        yield* Publisher.publishAll(Text, numbers(workers * concurrency * rounds))
        yield* until(
          backend,
          Effect.map(
            Effect.forEach(all, ({ subscription }) => subscription.stats),
            (stats) => stats.reduce((sum, { processed }) => sum + processed, 0) === workers * concurrency * rounds
          )
        )
        const took = (yield* Clock.currentTimeMillis) - since
        // Delays of a busy machine do not count.
        assert.isAtMost(took, rounds * millis * (backend.clock === "live" ? 1.5 : 1.1))
      })
    )

    test(
      "a claim takes what there is room for, while a reader waits with all of it",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const gate = yield* Deferred.make<void>()
        yield* Publisher.publishAll(Text, numbers(6))
        const membership = {
          group: "g",
          selector: Channel.selector(Text),
          shard: broker.shardsOf(Channel.selector(Text))[0]!,
          start: { _tag: "Earliest" },
          leaseMillis: 400
        } as const
        const lost = yield* broker.join({ ...membership, consumer: "lost" })
        const taken: Array<Broker.Delivery> = []
        while (taken.length < 6) taken.push(...yield* soon(lost.read(6, 1_000)))
        const watch = watching()
        const { seen, subscription } = yield* listen(Text, {
          group: "g",
          lease: 400,
          concurrency: 2,
          prefetch: 0,
          handler: () => Effect.andThen(watch.look, Deferred.await(gate))
        })
        watch.of(subscription)
        yield* soon(Queue.takeN(seen, 2))
        yield* backend.advance(200)
        assert.deepInclude(yield* subscription.stats, { held: 2, crashed: 2 })
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Queue.takeN(seen, 4))
        yield* soon(subscription.drain)
        assert.isAtMost(watch.most(), 2)
        assert.deepInclude(yield* subscription.stats, { processed: 6, crashed: 6 })
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )
  })

  describe("Broker.join: capacity", () => {
    test(
      "tells that there is something, and takes nothing of it",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const selector = Channel.selector(Text)
        const membership = { group: "g", selector, start: { _tag: "Earliest" }, leaseMillis: 400 } as const
        const shard = broker.shardsOf(selector)[0]!
        const member = yield* broker.join({ ...membership, shard, consumer: "first" })
        /** Reads when there may be messages; a read may return none. */
        const some = (count: number) =>
          soon(Effect.gen(function*() {
            while (true) {
              while (!(yield* member.awaitReady(1_000))) yield* Effect.yieldNow
              const deliveries = yield* member.read(count, 0)
              assert.isAtMost(deliveries.length, count)
              if (deliveries.length > 0) return deliveries.map(({ id }) => id)
            }
          }))
        const pending = Effect.map(broker.info(selector), ({ channels }) => channels[0]!.groups[0]!.pending)
        const waiting = yield* Effect.forkChild(some(1), { startImmediately: true })
        yield* Publisher.publishAll(Text, ["a", "b", "c"], (id) => ({ id }))
        assert.deepStrictEqual(yield* Fiber.join(waiting), ["a"])
        while (!(yield* soon(member.awaitReady(1_000)))) yield* Effect.yieldNow
        assert.strictEqual(yield* pending, 1)
        assert.deepStrictEqual(yield* some(1), ["b"])
        assert.deepStrictEqual(yield* some(5), ["c"])
        // Another member takes them first.
        const other = yield* broker.join({ ...membership, shard, consumer: "second" })
        const later = yield* Effect.forkChild(some(5), { startImmediately: true })
        const theirs = yield* Effect.forkChild(
          soon(Effect.repeat(other.read(10, 1_000), { until: (deliveries) => deliveries.length > 0 })),
          { startImmediately: true }
        )
        yield* Publisher.publish(Text, "d", { id: "d" })
        yield* Effect.raceFirst(Fiber.await(later), Fiber.await(theirs))
        yield* Publisher.publish(Text, "e", { id: "e" })
        const both = [...yield* Fiber.join(later), ...(yield* Fiber.join(theirs)).map(({ id }) => id)]
        assert.deepStrictEqual(both.toSorted(), ["d", "e"])
        assert.deepStrictEqual([...yield* member.shared(new Set(["texts", "others"]))], ["texts"])
      })
    )
  })
}
