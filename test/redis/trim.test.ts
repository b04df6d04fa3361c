/** Trimming of the logs on Redis. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import { freshPrefix, listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Short = Channel.make("texts.short", { payload: Schema.String, limits: { maxAge: "1 day", minId: "1" } })

describe("Broker.trim", () => {
  it.live("removes from every log what all groups have acknowledged", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const { seen, subscription } = yield* listen(Channel.union([Text, Short]))
      yield* Publisher.publishAll(Text, Array.from({ length: 10 }, (_, i) => String(i)))
      yield* Publisher.publish(Short, "x")
      yield* Queue.takeN(seen, 11)
      yield* subscription.drain
      yield* Publisher.publish(Text, "kept")
      // Nothing younger than the grace is removed: the next millisecond of the server is enough.
      yield* Effect.sleep("5 millis")
      assert.strictEqual(yield* broker.trim(0), 11)
      assert.strictEqual(yield* broker.trim(0), 0)
      const { channels } = yield* broker.info({ _tag: "Pattern", pattern: "**" })
      assert.deepStrictEqual(channels.map(({ channel, length }) => [channel, length]), [["texts", 1], [
        "texts.short",
        0
      ]])
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Rotif.layer({
          url: `redis://127.0.0.1:${inject("redisPort")}`,
          prefix: freshPrefix(),
          graceMillis: 0,
          trimInterval: "1 day"
        })
      )
    ))
})
