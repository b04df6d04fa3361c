/** Opening a namespace: what is refused at the start, and which rights are optional. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { TestConsole } from "effect/testing"
import { inspect } from "node:util"
import { Channel, Publisher, Redis, Rotif } from "rotif"
import { inject } from "vitest"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { freshPrefix } from "../contract/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`
const Text = Channel.make("texts", { payload: Schema.String })

const opening = (options: Partial<Rotif.RedisOptions>) =>
  Effect.flip(Effect.scoped(Layer.build(Layer.fresh(Rotif.layer({ url, ...options } as Rotif.RedisOptions)))))

describe("opening a namespace", () => {
  it.live("with another number of shards than it was made with is refused, and changes nothing", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const publish = Publisher.publish(Text, "x").pipe(
        Effect.provide(Layer.fresh(Rotif.layer({ url, prefix, shards: 3 })))
      )
      yield* publish
      for (const shards of [1, 8]) {
        const error = yield* opening({ prefix, shards })
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Refused" })
        assert.include(error.message, `the namespace "${prefix}" has 3 shards and this client is set to ${shards}`)
        assert.include(error.message, "use shards: 3, or another prefix")
      }
      assert.strictEqual((yield* publish)._tag, "Published")
    }))

  it.live.each(
    [
      [{ prefix: "" }, "invalid prefix \"\""],
      [{ prefix: "a{b}" }, "invalid prefix a{b}"],
      [{ prefix: "x".repeat(65) }, "expected 1 to 64 characters"],
      [{ shards: 0 }, "invalid number of shards 0: expected a whole number from 1 to 1024"],
      [{ shards: 1.5 }, "invalid number of shards 1.5"],
      [{ shards: Number.NaN }, "invalid number of shards NaN"],
      [{ shards: 1_025 }, "invalid number of shards 1025"],
      [{ graceMillis: Number.NaN }, "invalid graceMillis NaN"],
      [{ graceMillis: -1 }, "invalid graceMillis -1"]
    ] as const
  )("with %o is refused", ([options, message]) =>
    Effect.gen(function*() {
      const error = yield* opening(options)
      assert.deepInclude(error, { _tag: "BrokerError", reason: "Refused" })
      assert.include(error.message, message)
    }))
})

describe("the look at the server", () => {
  it.effect("logs nothing about properties that the server does not show", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({
        "maxmemory-policy": "allkeys-lru",
        user: ["alice on >secret ~* &* +@all -config"]
      })
      yield* Redis.make({ url: server.url, username: "alice", password: "secret" })
      assert.strictEqual(inspect(yield* TestConsole.logLines), "[]")
    }))
})
