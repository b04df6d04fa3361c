/** The publisher alone, before a message reaches a backend; contract/publisher.ts has the rest. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Broker, Channel, Publisher } from "rotif"

const Text = Channel.make("texts", { payload: Schema.String })

const mebibyte = 1024 * 1024

const unused = {} as never

/** A publisher on a backend that accepts all messages, with the accepted messages. */
const recording = (options?: Publisher.Options) => {
  const arrived: Array<Broker.NewMessage> = []
  const broker = Layer.mock(Broker.Broker)({
    shards: 1,
    isPolled: true,
    shardsOf: () => [0],
    broadcast: { publish: () => Effect.void, listen: () => Effect.void },
    letters: unused,
    scheduled: unused,
    recurring: unused,
    stats: unused,
    groups: unused,
    inspection: unused,
    ping: Effect.void,
    own: { keyFor: (_, name) => name, problemOf: () => undefined, read: () => Effect.undefined },
    append: (messages) =>
      Effect.sync(() => {
        arrived.push(...messages)
        return messages.map(() => ({ _tag: "Stored", position: "1-0" }) as const)
      })
  })
  return { arrived, layer: Publisher.layer(options).pipe(Layer.provide(broker)) }
}

/** Of this many bytes, as JSON. */
const textOf = (bytes: number) => "x".repeat(bytes - 2)

describe("Publisher: size of a message", () => {
  it.effect("is at most 1 MiB unless said otherwise", () => {
    const { arrived, layer } = recording()
    return Effect.gen(function*() {
      yield* Publisher.publish(Text, textOf(mebibyte))
      const error = yield* Effect.flip(Publisher.publish(Text, textOf(mebibyte + 1)))
      assert.deepInclude(error, { _tag: "PayloadTooLarge", bytes: mebibyte + 1, limit: mebibyte })
      assert.lengthOf(arrived, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("is counted in bytes of UTF-8, not in characters", () => {
    const { arrived, layer } = recording({ maxPayloadBytes: 3_002 })
    return Effect.gen(function*() {
      yield* Publisher.publish(Text, "世".repeat(1_000))
      const error = yield* Effect.flip(Publisher.publish(Text, "世".repeat(1_000) + "x"))
      assert.deepInclude(error, { _tag: "PayloadTooLarge", bytes: 3_003, limit: 3_002 })
      assert.lengthOf(arrived, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("is never more than 64 MiB, whatever is said", () => {
    const { arrived, layer } = recording({ maxPayloadBytes: 1024 * mebibyte })
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Publisher.publish(Text, textOf(64 * mebibyte + 1)))
      assert.deepInclude(error, { _tag: "PayloadTooLarge", bytes: 64 * mebibyte + 1, limit: 64 * mebibyte })
      assert.lengthOf(arrived, 0)
    }).pipe(Effect.provide(layer))
  })
})

describe("Publisher: ids", () => {
  it.effect("differ between publishers, as if they were two processes", () => {
    const publishers = [recording(), recording(), recording()]
    return Effect.gen(function*() {
      for (const { layer } of publishers) {
        yield* Effect.provide(Publisher.publishAll(Text, Array.from({ length: 100 }, (_, i) => String(i))), layer, {
          local: true
        })
      }
      const ids = publishers.flatMap(({ arrived }) => arrived.map(({ id }) => id))
      assert.strictEqual(new Set(ids).size, 300)
      for (const id of ids) assert.isAtMost(id.length, 12)
    })
  })

  it.effect("ascend within one publisher", () => {
    const { arrived, layer } = recording()
    return Effect.gen(function*() {
      yield* Publisher.publishAll(Text, Array.from({ length: 2_000 }, (_, i) => String(i)))
      const ids = arrived.map(({ id }) => id)
      assert.deepStrictEqual(ids.toSorted((a, b) => (a < b ? -1 : 1)), ids)
    }).pipe(Effect.provide(layer))
  })
})
