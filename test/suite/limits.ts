/** Limits of one channel that is defined in different ways: nothing is removed that one of the definitions would keep. */
import { assert, describe } from "@effect/vitest"
import { Effect, Logger, Schema } from "effect"
import { Broker, Channel, Publisher } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const name = "limited"
const defined = (limits?: Channel.ChannelOptions<typeof Schema.Int>["limits"]) =>
  Channel.make(name, { payload: Schema.Int, limits })

const trimAll = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  // More than once: what is seen first may be that there is something new to look at.
  for (let i = 0; i < 3; i++) for (let shard = 0; shard < broker.shards; shard++) yield* broker.trim(shard)
})

const length = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  return (yield* broker.info({ _tag: "Channels", names: [name] })).channels[0]!.length
})

/** Counts the lines that tell of definitions that differ. */
const counting = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  let told = 0
  const logger = Logger.make(({ message }) => {
    if (String(message).includes("different limits")) told++
  })
  return Effect.map(Effect.provide(effect, Logger.layer([logger])), (value) => ({ value, told }))
}

export const limitsSuite = (backend: Backend): void => {
  const test = promises(backend)
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
      "a group gets everything that a definition without limits has published, whoever publishes with one beside it",
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
}
