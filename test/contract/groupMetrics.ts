/** Metrics of groups, on every backend. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Layer, Metric, Queue, Schema } from "effect"
import { Channel, Publisher, Stats } from "rotif"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })

/** Reads the gauges of a group in the registry of this fiber, by the last part of their names. */
export const gaugesOf = (group: string) =>
  Effect.map(
    Metric.snapshot,
    (metrics): Record<string, number> =>
      Object.fromEntries(metrics.flatMap(({ attributes, id, state }) =>
        id.startsWith("rotif.group.") && attributes?.["messaging.consumer.group.name"] === group
          ? [[id.slice("rotif.group.".length), (state as { readonly value: number }).value]]
          : []
      ))
  )

export const groupMetricsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Stats.layerMetrics", () => {
    test(
      "with a namespace, two Rotifs of one program do not overwrite each other's gauges of a group",
      Effect.gen(function*() {
        const lagOf = (namespace: string) =>
          Effect.map(
            Metric.snapshot,
            (metrics) =>
              metrics.flatMap(({ attributes, id, state }) =>
                id === "rotif.group.lag" && attributes?.["rotif.namespace"] === namespace
                  ? [(state as { readonly value: number }).value]
                  : []
              )
          )
        const one = (namespace: string, count: number) =>
          Effect.gen(function*() {
            const { subscription } = yield* listen(Text, { group: "namesakes" })
            yield* subscription.pause
            yield* Publisher.publishAll(Text, Array.from({ length: count }, String))
            yield* Layer.build(Stats.layerMetrics({ interval: "100 millis", namespace }))
          })
        yield* one("a", 2)
        yield* Effect.provide(one("b", 3), yield* Layer.build(backend.layer()))
        yield* backend.advance("1 second")
        yield* until(backend, Effect.map(lagOf("a"), ([lag]) => lag === 2))
        yield* until(backend, Effect.map(lagOf("b"), ([lag]) => lag === 3))
        assert.deepStrictEqual([yield* lagOf("a"), yield* lagOf("b")], [[2], [3]])
      })
    )

    test(
      "tells lag, pending, ready, due, dead letters and the oldest age of a group over its channels, and 0 when it is gone",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* listen(Channel.pattern("*", { payload: Schema.String }), {
          group: "g",
          prefetch: 0,
          retryDelay: "1 hour",
          maxRetries: 1,
          handler: ({ payload }) => payload === "hang" ? Deferred.await(gate) : Effect.fail("no")
        })
        const dying = yield* listen(Text, { group: "dying", maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "due")
        yield* soon(Queue.take(seen))
        yield* Publisher.publish(Other, "hang")
        yield* soon(Queue.take(seen))
        yield* Publisher.publishAll(Other, ["1", "2", "3"])
        yield* Layer.build(Stats.layerMetrics({ interval: "100 millis" }))
        yield* backend.advance("1 second")
        const isSo = Effect.map(
          gaugesOf("g"),
          ({ oldest_age, ...rest }) =>
            oldest_age! > 0 && JSON.stringify(rest, Object.keys(rest).toSorted()) ===
              JSON.stringify({ dead_letters: 0, due: 1, lag: 3, pending: 1, ready: 0 })
        )
        yield* until(backend, isSo)
        yield* until(backend, Effect.map(gaugesOf("dying"), ({ dead_letters, lag }) => dead_letters === 1 && lag === 0))
        yield* soon(dying.subscription.unsubscribe({ removeGroup: true }))
        yield* Deferred.succeed(gate, undefined)
        yield* soon(subscription.unsubscribe({ removeGroup: true }))
        yield* backend.advance("1 second")
        yield* until(
          backend,
          Effect.map(
            gaugesOf("g"),
            (all) => Object.keys(all).length === 6 && Object.values(all).every((value) => value === 0)
          )
        )
        assert.deepStrictEqual((yield* Stats.channels()).flatMap(({ groups }) => groups), [])
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )
  })
}
