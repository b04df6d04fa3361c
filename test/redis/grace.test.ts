/** How long messages stay to be found after a lost answer: derived from the time a publish may take, and the longest of all processes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Redis } from "ioredis"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import * as LogLines from "../fixtures/logLines.ts"
import { freshPrefix, listen } from "../contract/kit.ts"

const port = inject("redisPort")
const url = `redis://127.0.0.1:${port}`
const Text = Channel.make("texts", { payload: Schema.String })

const client = Effect.acquireRelease(
  Effect.sync(() => new Redis({ host: "127.0.0.1", port })),
  (redis) => Effect.sync(() => redis.disconnect())
)

/** What processes of the namespace keep messages for, as they have told. */
const told = (prefix: string, options: Rotif.RedisOptions) =>
  Effect.gen(function*() {
    const redis = yield* client
    const broker = yield* Broker.Broker
    yield* broker.trim(0)
    return yield* Effect.promise(() => redis.zrange(`{${prefix}:0}:settings:`, "0", "-1"))
  }).pipe(Effect.scoped, Effect.provide(Rotif.layer(options)))

const trimmed = Effect.flatMap(Broker.Broker, (broker) => broker.trim(0))

describe("graceMillis", () => {
  it.live("follows commandTimeout: a message stays for as long as a publish may take, and 5 seconds", () =>
    Effect.gen(function*() {
      const usual = freshPrefix()
      assert.deepStrictEqual(yield* told(usual, { url, prefix: usual }), ["15000"])
      const quick = freshPrefix()
      assert.deepStrictEqual(yield* told(quick, { url, prefix: quick, commandTimeout: "1 second" }), ["10000"])
      const patient = freshPrefix()
      assert.deepStrictEqual(yield* told(patient, { url, prefix: patient, commandTimeout: "30 seconds" }), ["65000"])
    }))

  it.live("a grace shorter than a publish may take is warned of once, with the value to set", () =>
    Effect.gen(function*() {
      const log = LogLines.make()
      const prefix = freshPrefix()
      const options = { url, prefix, commandTimeout: "30 seconds" } as const
      yield* told(prefix, { ...options, graceMillis: 60_001 }).pipe(Effect.provide(log.layer))
      assert.deepStrictEqual(log.find("Warn", "graceMillis"), [])
      yield* told(prefix, { ...options, graceMillis: 60_000 }).pipe(Effect.provide(log.layer))
      assert.lengthOf(log.find("Warn", "graceMillis is 60000", "commandTimeout 30000", "more than 60000"), 1)
    }))

  it.live("of the processes of a namespace the longest counts", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const short = Rotif.layer({ url, prefix, graceMillis: 0, trimInterval: "1 hour" })
      const handleOne = Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text, { group: "g" })
        yield* Publisher.publish(Text, "x")
        yield* Queue.take(seen)
        yield* subscription.drain
        return yield* trimmed
      }).pipe(Effect.scoped)
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* handleOne, 1)
      }).pipe(Effect.provide(short))
      yield* Effect.provide(trimmed, Rotif.layer({ url, prefix, graceMillis: 60_000 }))
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* handleOne, 0)
      }).pipe(Effect.provide(short))
    }))
})
