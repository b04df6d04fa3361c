/** Metrics of groups by several processes: one reports for all. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Metric, Schema, Scope } from "effect"
import { Channel, Inspector, Publisher, Rotif, Stats } from "rotif"
import { inject } from "vitest"
import { gaugesOf } from "../contract/groupMetrics.ts"
import { freshPrefix, listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

describe("Stats.layerMetrics", () => {
  it.live(
    "one process of a namespace reports for all, and another one when that has ended",
    () =>
      Effect.gen(function*() {
        const prefix = freshPrefix()
        const layer = () => Rotif.layer({ url: `redis://127.0.0.1:${inject("redisPort")}`, prefix })
        const registries = [new Map(), new Map(), new Map()]
        const scopes = yield* Effect.forEach(registries, (registry) =>
          Effect.gen(function*() {
            const scope = yield* Scope.make()
            const metrics = Stats.layerMetrics({ interval: "100 millis" }).pipe(Layer.provide(layer()))
            yield* Layer.buildWithScope(metrics, scope).pipe(Effect.provideService(Metric.MetricRegistry, registry))
            return scope
          }))
        const lags = Effect.forEach(registries, (registry) =>
          Effect.map(
            gaugesOf("g").pipe(Effect.provideService(Metric.MetricRegistry, registry)),
            ({ lag = 0 }) => lag
          ))
        yield* Effect.gen(function*() {
          const { subscription } = yield* listen(Text, { group: "g" })
          yield* subscription.pause
          yield* Publisher.publishAll(Text, ["1", "2", "3"])
          const wait = (isSo: (lags: ReadonlyArray<number>) => boolean) =>
            Effect.repeat(Effect.delay(lags, 20), { until: isSo }).pipe(Effect.timeout("15 seconds"))
          const isOne = (lags: ReadonlyArray<number>) => lags.toSorted((a, b) => a - b).join() === "0,0,3"
          const first = (yield* wait(isOne)).indexOf(3)
          yield* Scope.close(scopes[first]!, Exit.void)
          // What it said last is not true any more.
          assert.deepStrictEqual(yield* lags, [0, 0, 0])
          const second = (yield* wait(isOne)).indexOf(3)
          assert.notStrictEqual(second, first)
          // The key that says whose turn it is belongs there.
          assert.deepStrictEqual((yield* Inspector.verify({ confirmAfter: 10 })).findings, [])
        }).pipe(Effect.scoped, Effect.provide(layer()))
        yield* Effect.forEach(scopes, (scope) => Scope.close(scope, Exit.void))
      }),
    60_000
  )
})
