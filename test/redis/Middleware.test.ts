/** Limits that several processes share: Effect's Redis stores on our connections. */
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Layer, Schema } from "effect"
import { CircuitBreaker, RateLimiter } from "effect/persistence"
import { Channel, EffectRedis, Middleware, Publisher, Rotif } from "rotif"
import { inject } from "vitest"
import { freshPrefix } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

class Down extends Data.TaggedError("Down")<{ readonly message: string }> {}

const connections = [
  { name: "Redis", options: { url: `redis://127.0.0.1:${inject("redisPort")}` } },
  {
    name: "Cluster",
    options: { cluster: inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port })), shards: 8 }
  }
]

describe.each(connections)("middleware of several programs on one $name", ({ options }) => {
  it.live("Middleware.rateLimit: one limit for all", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const limits = RateLimiter.layer.pipe(
        Layer.provide(RateLimiter.layerStoreRedis({ prefix: `{${prefix}-limits}:` })),
        Layer.provide(EffectRedis.layer())
      )
      const program = limits.pipe(Layer.provideMerge(Rotif.layer({ ...options, prefix })))
      const Limited = Middleware.forChannel(
        Text,
        Middleware.rateLimit({ limit: 2, window: "1 minute", algorithm: "fixed-window", onExceeded: "fail" })
      )
      const publish = Publisher.publish(Limited, "x").pipe(Effect.provide(program, { local: true }))
      yield* publish
      yield* publish
      const error = yield* Effect.flip(publish)
      assert.strictEqual(error._tag, "RateLimiterError")
    }))

  it.live("Middleware.circuitBreaker: a circuit opened by one program is open for all", () =>
    Effect.gen(function*() {
      const prefix = freshPrefix()
      const breaker = CircuitBreaker.layer({ tripPolicy: CircuitBreaker.consecutive(1), openDuration: "1 minute" })
        .pipe(
          Layer.provide(CircuitBreaker.layerStoreRedis({ prefix: `{${prefix}-circuits}:` })),
          Layer.provide(EffectRedis.layer())
        )
      const program = breaker.pipe(Layer.provideMerge(Rotif.layer({ ...options, prefix })))
      const Failing = Middleware.forChannel(
        Text,
        Middleware.circuitBreaker(),
        Middleware.publish(() => () => Effect.fail(new Down({ message: "down" })))
      )
      const publish = Effect.flip(Publisher.publish(Failing, "x")).pipe(Effect.provide(program, { local: true }))
      assert.strictEqual((yield* publish)._tag, "Down")
      assert.strictEqual((yield* publish)._tag, "CircuitBreakerError")
    }))
})
