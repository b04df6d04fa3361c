/** A message above the server's limit for one argument: it alone is refused. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Channel, Publisher, Rotif } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const long = "x".repeat(2 * 2 ** 20)

const connections = (server: RedisServer.RedisServer) =>
  Effect.map(
    server.command("client", "list"),
    (list) => String(list).split("\n").filter((line) => line.includes("name=rotif:")).map((line) => line.split(" ")[0])
  )

describe("a message longer than proto-max-bulk-len", () => {
  it.live("is refused before it is sent; those beside it are stored, and no connection ends", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({ "proto-max-bulk-len": "1mb" })
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "first")
        const before = yield* connections(server)
        for (const options of [{}, { id: "a" }, { delay: "1 hour" }] as const) {
          const error = yield* Effect.flip(Publisher.publish(Text, long, options))
          assert.deepInclude(error, { _tag: "BrokerError", reason: "Refused" })
          assert.include(error.message, "longer than the 1048576 that the server takes (proto-max-bulk-len)")
        }
        const results = yield* Publisher.publishAll(Text, ["a", long, "b"]).pipe(Effect.result)
        assert.isDefined(results)
        assert.strictEqual(yield* server.command("xlen", "{rotif:0}:log:texts"), 3)
        assert.deepStrictEqual(yield* connections(server), before)
      }).pipe(Effect.provide(Rotif.layer({ url: server.url, maxPayloadBytes: 4 * 2 ** 20 })))
    }).pipe(Effect.scoped))

  it.live("is learned from the first where CONFIG is not permitted", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make({
        "proto-max-bulk-len": "1mb",
        user: ["shop on >x ~* &* +@all -config"]
      })
      yield* Effect.gen(function*() {
        yield* Publisher.publish(Text, "first")
        yield* Effect.flip(Publisher.publish(Text, long))
        yield* Publisher.publish(Text, "second")
        const before = yield* connections(server)
        const error = yield* Effect.flip(Publisher.publish(Text, long))
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Refused" })
        assert.deepStrictEqual(yield* connections(server), before)
      }).pipe(
        Effect.provide(Rotif.layer({ url: `redis://shop:x@127.0.0.1:${server.port}`, maxPayloadBytes: 4 * 2 ** 20 }))
      )
    }).pipe(Effect.scoped))
})
