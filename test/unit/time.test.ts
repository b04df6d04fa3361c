/** Time in memory: nothing polls, and everything happens to the millisecond, however a test moves its clock. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Deferred, Effect, Random, Ref, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Broker, Channel, DeadLetters, Health, Publisher, Rotif, Scheduler, Subscription } from "rotif"

const Text = Channel.make("texts", { payload: Schema.String })

const day = 86_400_000

/** Measures an effect by the clock of the machine. */
const took = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(effect, () => performance.now() - from)
  })

const now = Clock.currentTimeMillis

const intBetween = (least: number, most: number) => Random.nextIntBetween(least, most)

/** A policy, and the delays it stands for. */
const policies = Effect.gen(function*() {
  const times = yield* intBetween(1, 7)
  const unit = yield* intBetween(1, 5_000)
  const random = yield* Effect.replicateEffect(intBetween(0, 100_000), times)
  const factor = yield* intBetween(1, 3)
  return [
    {
      retry: (attempt: number) => random[attempt - 1]!,
      // One that asks for no time at all is a matter of the policy, not of the clock.
      delays: random.map((millis) => Math.max(1, millis))
    },
    {
      retry: Schedule.spaced(unit).pipe(Schedule.upTo({ times })),
      delays: Array.from({ length: times }, () => unit)
    },
    {
      retry: Schedule.exponential(unit, factor).pipe(Schedule.upTo({ times })),
      delays: Array.from({ length: times }, (_, i) => unit * factor ** i)
    }
  ]
})

/** Moves the clock by so much, in one step or in some. */
const pass = Effect.fnUntraced(function*(millis: number) {
  const steps = yield* intBetween(1, 4)
  const end = (yield* now) + millis
  for (let step = 1; step < steps; step++) {
    const left = end - (yield* now)
    yield* TestClock.adjust(yield* intBetween(0, left))
  }
  yield* TestClock.setTime(end)
})

describe("Rotif.layerMemory: nothing polls", () => {
  it.effect("a month with five idle subscriptions takes less than 50 ms", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 5; i++) {
        yield* Subscription.make(Text, { group: `g${i}`, concurrency: 4, handler: () => Effect.void })
      }
      // Some work first, which comes to rest.
      yield* Publisher.publishAll(Text, ["a", "b", "c"])
      yield* TestClock.adjust("1 minute")
      assert.isBelow(yield* took(TestClock.adjust("30 days")), 50)
      assert.strictEqual((yield* Health.check).status, "healthy")
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))

  it.effect("fifty years may pass at once: a test begins with today", () =>
    Effect.gen(function*() {
      const seen = yield* Ref.make<ReadonlyArray<number>>([])
      yield* Subscription.make(Text, {
        group: "g",
        handler: () => Effect.flatMap(now, (at) => Ref.update(seen, (all) => [...all, at]))
      })
      const today = DateTime.toEpochMillis(DateTime.makeUnsafe("2026-11-30T09:00:00Z"))
      assert.isBelow(yield* took(TestClock.setTime(today)), 1_000)
      yield* Publisher.publish(Text, "now")
      yield* Publisher.publish(Text, "tomorrow", { delay: "1 day" })
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* Ref.get(seen), [today, today + day])
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))

  it.effect("messages that are acknowledged, too old or too many are removed all the same", () =>
    Effect.gen(function*() {
      const Aged = Channel.make("aged", { payload: Schema.String, limits: { maxAge: "1 hour" } })
      const lengths = Broker.Broker.use((broker) => broker.info({ _tag: "Pattern", pattern: "**" })).pipe(
        Effect.map(({ channels }) => Object.fromEntries(channels.map(({ channel, length }) => [channel, length])))
      )
      yield* Subscription.make(Text, { group: "g", handler: () => Effect.void })
      yield* Publisher.publish(Text, "a")
      yield* Publisher.publish(Aged, "b")
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual(yield* lengths, { aged: 1, texts: 0 })
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* lengths, { aged: 0, texts: 0 })
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))

  it.effect("dead letters end their retention all the same", () =>
    Effect.gen(function*() {
      yield* Subscription.make(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("never") })
      yield* Publisher.publish(Text, "a")
      yield* TestClock.adjust("23 hours")
      assert.strictEqual(yield* DeadLetters.count(), 1)
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* DeadLetters.count(), 0)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemoryWith({ deadLetters: { maxAge: "1 day" } }))))

  it.effect("who falls silent is taken over from when its lease ends, however long nothing happened before", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const taken = yield* Deferred.make<number>()
      yield* Subscription.make(Text, {
        group: "g",
        lease: "30 seconds",
        handler: () => Effect.flatMap(now, (at) => Deferred.succeed(taken, at))
      })
      yield* TestClock.adjust("30 days")
      const lost = yield* broker.join({
        shard: 0,
        group: "g",
        consumer: "lost",
        selector: Channel.selector(Text),
        start: { _tag: "Earliest" },
        leaseMillis: 30_000
      })
      const [subscription] = yield* Subscription.running
      yield* subscription!.pause
      yield* Publisher.publish(Text, "a")
      assert.lengthOf(yield* lost.read(1, 0), 1)
      yield* subscription!.resume
      yield* TestClock.adjust("29999 millis")
      assert.isFalse(yield* Deferred.isDone(taken))
      yield* TestClock.adjust("1 milli")
      assert.strictEqual(yield* Deferred.await(taken), 30 * day + 30_000)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))
})

describe("Rotif.layerMemory: to the millisecond", () => {
  it.effect.each(Array.from({ length: 60 }, (_, seed) => seed))(
    "attempts come when the policy says, however the clock is moved (seed %i)",
    (seed) =>
      Effect.gen(function*() {
        for (const { delays, retry } of yield* policies) {
          yield* Effect.gen(function*() {
            const turns = yield* intBetween(0, 3)
            const busyMillis = (yield* Random.nextBoolean) ? 0 : yield* intBetween(1, 60_000)
            const isLate = yield* Random.nextBoolean
            const isOnce = yield* Random.nextBoolean
            const attempts: Array<number> = []
            const subscribe = Subscription.make(Text, {
              group: "g",
              maxRetries: delays.length,
              exactlyOnce: isOnce,
              retry,
              handler: () =>
                Effect.gen(function*() {
                  attempts.push(yield* now)
                  for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
                  yield* Effect.promise(() => Promise.resolve())
                  if (busyMillis > 0) yield* Effect.sleep(busyMillis)
                  return yield* Effect.fail("again")
                })
            })
            const from = yield* now
            if (isLate) yield* Publisher.publish(Text, "a")
            yield* subscribe
            if (!isLate) yield* Publisher.publish(Text, "a")
            const expected = [from]
            for (const delay of delays) expected.push(expected.at(-1)! + busyMillis + delay)
            yield* pass(expected.at(-1)! - from + busyMillis)
            assert.deepStrictEqual(attempts, expected)
            assert.strictEqual(yield* DeadLetters.count(), 1)
          }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemoryWith()))
        }
      }).pipe(Random.withSeed(`attempts ${seed}`))
  )

  it.effect.each(Array.from({ length: 20 }, (_, seed) => seed))(
    "scheduled, rescheduled and recurring messages come when they are due (seed %i)",
    (seed) =>
      Effect.gen(function*() {
        const seen: Array<readonly [string, number]> = []
        yield* Subscription.make(Text, {
          group: "g",
          concurrency: 100,
          handler: ({ payload }) => Effect.map(now, (at) => seen.push([payload, at]))
        })
        const expected: Array<readonly [string, number]> = []
        const from = yield* now
        for (let n = 0; n < 20; n++) {
          const delay = yield* intBetween(1, 10 * day)
          const { id } = yield* Publisher.publish(Text, `${n}`, { id: `${n}`, delay })
          const moved = (yield* Random.nextBoolean) ? yield* intBetween(1, 10 * day) : delay
          if (moved !== delay) yield* Scheduler.reschedule(Text, id, { delay: moved })
          expected.push([`${n}`, from + moved])
        }
        yield* Scheduler.recurring("tick", { every: "1 day" }, Text, "tick")
        for (let n = 1; n <= 10; n++) expected.push(["tick", from + n * day])
        yield* pass(10 * day)
        const order = (all: typeof seen) => all.map(([text, at]) => `${at} ${text}`).sort()
        assert.deepStrictEqual(order(seen), order(expected))
      }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemoryWith()), Random.withSeed(`scheduled ${seed}`))
  )
})
