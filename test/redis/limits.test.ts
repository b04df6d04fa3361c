/** Limits on Redis during a deploy: programs with different definitions start and stop. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif } from "rotif"
import { Redis } from "ioredis"
import { inject } from "vitest"
import { freshPrefix, listen } from "../contract/kit.ts"

const defined = (limits?: { readonly maxLength?: number }) => Channel.make("limited", { payload: Schema.Int, limits })
const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)

const trim = Effect.gen(function*() {
  const broker = yield* Broker.Broker
  for (let i = 0; i < 3; i++) yield* broker.trim(0)
})

const place = Effect.gen(function*() {
  const prefix = freshPrefix()
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis({ host: "127.0.0.1", port: inject("redisPort") })),
    (client) => Effect.sync(() => client.disconnect())
  )
  const key = (name: string) => `{${prefix}:0}:${name}`
  return {
    client,
    key,
    length: Effect.promise(() => client.xlen(key("log:limited"))),
    version: Effect.promise(() => client.hget(key("meta"), "v")),
    layer: () =>
      Rotif.layer({
        url: `redis://127.0.0.1:${inject("redisPort")}`,
        prefix,
        trimInterval: "1 day",
        graceMillis: 0,
        drainTimeout: 1000
      })
  }
})

describe("limits of programs that run side by side", () => {
  it.live("a deploy that raises maxLength is not cut by a publish of an old process", () =>
    Effect.gen(function*() {
      const { layer, length, version } = yield* place
      const small = defined({ maxLength: 100 })
      const large = defined({ maxLength: 5_000 })
      yield* Effect.gen(function*() {
        yield* Publisher.publish(small, 0)
        yield* Effect.provide(
          Effect.gen(function*() {
            yield* Publisher.publishAll(large, numbers(5_000))
            yield* trim
          }),
          layer()
        )
        assert.isAtLeast(yield* length, 5_000)
        const before = yield* version
        for (const i of numbers(250)) yield* Publisher.publish(small, i)
        yield* Publisher.publishAll(small, numbers(250))
        yield* trim
        assert.isAtLeast(yield* length, 5_000)
        assert.isAtMost(yield* length, 5_300)
        assert.strictEqual(yield* version, before)
      }).pipe(Effect.provide(layer()))
    }).pipe(Effect.scoped))

  it.live("limits that a deploy takes away delete nothing more, and a group handles everything", () =>
    Effect.gen(function*() {
      const { layer } = yield* place
      yield* Effect.provide(Publisher.publish(defined({ maxLength: 100 }), -1), layer())
      yield* Effect.gen(function*() {
        const whole = defined()
        yield* Publisher.publishAll(whole, numbers(3_000))
        yield* trim
        const { subscription } = yield* listen(whole, { concurrency: 100 })
        while ((yield* subscription.stats).processed < 3_001) yield* Effect.sleep(5)
        assert.deepInclude(yield* subscription.stats, { processed: 3_001, vanished: 0 })
      }).pipe(Effect.scoped, Effect.provide(layer()))
    }).pipe(Effect.scoped))

  it.live("a lower limit counts when no program was heard of for ten minutes that defines the higher one", () =>
    Effect.gen(function*() {
      const { client, key, layer, length } = yield* place
      yield* Effect.provide(Publisher.publishAll(defined({ maxLength: 5_000 }), numbers(1_000)), layer())
      yield* Effect.gen(function*() {
        yield* Publisher.publish(defined({ maxLength: 100 }), -1)
        yield* trim
        assert.strictEqual(yield* length, 1_001)
        const lines = yield* Effect.promise(() => client.hget(key("definitions"), "limited"))
        assert.match(lines!, /^\d{13} 100 - -\n\d{13} 5000 - -$/)
        // Its program was last heard of long ago.
        yield* Effect.promise(() => client.hset(key("definitions"), "limited", "1 5000 - -"))
        yield* trim
        assert.isAtMost(yield* length, 300)
      }).pipe(Effect.provide(layer()))
    }).pipe(Effect.scoped))

  it.live("a program registers its definitions again when the registry has lost them", () =>
    Effect.gen(function*() {
      const { client, key, layer, length } = yield* place
      yield* Effect.gen(function*() {
        yield* Publisher.publishAll(defined(), numbers(500))
        yield* Effect.promise(() => client.del(key("definitions")))
        yield* Effect.provide(
          Effect.gen(function*() {
            yield* Publisher.publish(defined({ maxLength: 100 }), -1)
          }),
          layer()
        )
        yield* trim
        assert.strictEqual(yield* length, 501)
      }).pipe(Effect.provide(layer()))
    }).pipe(Effect.scoped))
})
