/** Limits of a channel with several definitions: no message is removed that one of the definitions keeps. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Logger, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Stats, type Subscription, Transaction } from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const name = "limited"
const defined = (limits?: Channel.ChannelOptions<typeof Schema.Int>["limits"]) =>
  Channel.make(name, { payload: Schema.Int, limits })

const trimAll = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  // More than once: the first trim may only find that the limits are new.
  for (let i = 0; i < 3; i++) for (let shard = 0; shard < broker.shards; shard++) yield* broker.trim(shard)
})

const length = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  return (yield* broker.info({ _tag: "Channels", names: [name] })).channels[0]!.length
})

/** Counts the warnings about different definitions. */
const counting = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  let told = 0
  const logger = Logger.make(({ message }) => {
    if (String(message).includes("different limits")) told++
  })
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (value) => ({ value, told }))
}

export const limitsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  const retention = { trimInterval: "1 day", graceMillis: 0 } as const

  describe("limits that are defined in different ways", () => {
    const cases: ReadonlyArray<
      readonly [
        what: string,
        definitions: ReadonlyArray<Channel.ChannelOptions<typeof Schema.Int>["limits"]>,
        least: number,
        most: number
      ]
    > = [
      ["two lengths: the greater", [{ maxLength: 10 }, { maxLength: 600 }], 600, 800],
      ["a length and none: none", [{ maxLength: 10 }, undefined], 1_000, 1_000],
      ["none and a length: none", [undefined, { maxLength: 10 }], 1_000, 1_000],
      ["a length and an age: none", [{ maxLength: 10 }, { maxAge: 1 }], 1_000, 1_000],
      [
        "two ages and a length in both: each at its most",
        [{ maxLength: 10, maxAge: 1 }, { maxLength: 700, maxAge: "1 day" }],
        700,
        900
      ],
      ["two positions: the lower", [{ minId: "99999999999999" }, { minId: "0-0" }], 999, 1_000],
      ["the same twice: as it says", [{ maxLength: 300 }, { maxLength: 300 }], 300, 500]
    ]
    for (const [what, definitions, least, most] of cases) {
      test(
        `in one program, ${what}; it is told once`,
        Effect.gen(function*() {
          const channels = definitions.map(defined)
          const { told } = yield* counting(Effect.gen(function*() {
            for (const channel of channels) yield* Publisher.publish(channel, -1)
            for (let i = 0; i < 1_000 - channels.length; i += 1) {
              yield* Publisher.publish(channels[i % channels.length]!, i)
            }
            yield* trimAll
          }))
          const kept = yield* length
          assert.isAtLeast(kept, least)
          assert.isAtMost(kept, most)
          assert.strictEqual(told, what.startsWith("the same") ? 0 : 1)
        }),
        retention
      )
    }

    test(
      "a group receives every message of a definition without limits, also beside publishers with one",
      Effect.gen(function*() {
        const small = defined({ maxLength: 10 })
        const whole = defined()
        yield* Publisher.publish(small, 0)
        yield* Publisher.publish(whole, 1)
        yield* Publisher.publishAll(whole, Array.from({ length: 500 }, (_, i) => i + 2))
        yield* Publisher.publishAll(small, Array.from({ length: 500 }, (_, i) => i + 502))
        yield* trimAll
        const { subscription } = yield* listen(whole, { concurrency: 50 })
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 1_002))
      }),
      retention
    )

    test(
      "who knows nothing of limits leaves them as they are",
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        yield* Publisher.publish(defined({ maxLength: 100 }), 0)
        for (let i = 0; i < 10; i++) {
          yield* broker.append(
            Array.from({ length: 100 }, (_, j) => ({ id: `${i}-${j}`, channel: name, payload: "1" }))
          )
        }
        yield* trimAll
        assert.isAtMost(yield* length, 300)
      }),
      retention
    )
  })

  describe("a limit that removes messages while they are handled", () => {
    const lease = 300
    const Trimmed = Channel.make("trimmed", { payload: Schema.String, limits: { maxAge: 1 } })
    const ways: ReadonlyArray<
      readonly [string, {
        readonly exactlyOnce?: boolean
        readonly transactional?: boolean
        readonly payload: string
        readonly ends: Partial<Subscription.Stats>
        readonly attempts: number
      }]
    > = [
      ["is acknowledged", { payload: "good", ends: { processed: 1 }, attempts: 1 }],
      ["is retried", { payload: "once", ends: { processed: 1, retried: 1 }, attempts: 2 }],
      ["becomes a dead letter", { payload: "bad", ends: { processed: 0, dead: 1 }, attempts: 1 }],
      ["is done once", { payload: "good", exactlyOnce: true, ends: { processed: 1 }, attempts: 1 }],
      ["is retried and done once", {
        payload: "once",
        exactlyOnce: true,
        ends: { processed: 1, retried: 1 },
        attempts: 2
      }],
      ["is committed", { payload: "good", transactional: true, ends: { processed: 1 }, attempts: 1 }]
    ]
    for (const [what, { attempts, ends, exactlyOnce, payload, transactional }] of ways) {
      test(
        `interrupts no handler: the message ${what} as any other; it is counted as vanished, and told once`,
        Effect.gen(function*() {
          const broker = yield* Broker.Broker
          let told = 0
          const logger = Logger.make(({ message }) => {
            if (String(message).includes("is handling")) told++
          })
          const gate = yield* Deferred.make<void>()
          const { seen, subscription } = yield* listen(Trimmed, {
            lease,
            retryDelay: 10,
            exactlyOnce,
            transactional,
            handler: Effect.fnUntraced(function*(message) {
              if (message.attempt === 1) yield* Deferred.await(gate)
              const transaction = yield* Effect.serviceOption(Transaction.Transaction)
              if (transaction._tag === "Some") {
                yield* Effect.flatMap(Transaction.key("count"), (key) => Transaction.incrby(key, 1)).pipe(
                  Effect.provideService(Transaction.Transaction, transaction.value)
                )
              }
              if (message.payload === "bad") yield* message.term("no")
              if (message.payload === "once" && message.attempt === 1) return yield* Effect.fail("not yet")
            })
          }).pipe(Effect.provide(Logger.layer([logger])))
          yield* Publisher.publish(Trimmed, payload)
          yield* soon(Queue.take(seen))
          yield* backend.advance(20)
          yield* broker.trim(broker.shardsOf(Channel.selector(Trimmed))[0]!)
          assert.strictEqual((yield* broker.info(Channel.selector(Trimmed))).channels[0]!.length, 0)
          // Several renewals, and longer than a lease.
          for (let i = 0; i < 8; i++) yield* backend.advance(lease / 3)
          assert.deepInclude(yield* subscription.stats, { inFlight: 1, lostLeases: 0, vanished: 1 })
          yield* Deferred.succeed(gate, undefined)
          yield* until(backend, Effect.map(subscription.stats, ({ dead, processed }) => processed + dead === 1))
          yield* until(backend, Effect.map(subscription.stats, ({ held }) => held === 0))
          assert.deepInclude(yield* subscription.stats, { ...ends, lostLeases: 0, vanished: 1, crashed: 0 })
          assert.strictEqual((yield* Queue.clear(seen)).length, attempts - 1)
          assert.strictEqual(told, 1)
          assert.deepStrictEqual(yield* leftover(Trimmed), nothingLeft)
          if (transactional === true) {
            assert.strictEqual(yield* Effect.flatMap(Transaction.keyFor(Trimmed, "count"), Transaction.read), "1")
          }
          const [group] = (yield* Stats.channels(Trimmed))[0]!.groups
          assert.strictEqual(group!.totals.acked, ends.processed)
        }),
        retention
      )
    }
  })
}
