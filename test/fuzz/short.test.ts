/** A few random histories, each with the same outcome on every backend; `npm run fuzz` plays many. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, References } from "effect"
import { Rotif } from "rotif"
import { inject } from "vitest"
import { backendsOn } from "./backends.ts"
import { type Backend, compare, shrink } from "./compare.ts"
import type * as History from "./history.ts"
import { playHistories } from "./histories.ts"

const backends = backendsOn(inject("redisPort"), inject("clusterPorts"))

describe("memory, Redis and a Cluster", () => {
  playHistories(8)

  it.live(
    "differ where one of them does something else, and the history is made smaller",
    () =>
      Effect.gen(function*() {
        const memory = backends[0]!
        const other: Backend = {
          name: "other",
          layer: () => Rotif.layerMemoryWith({ retryDelay: "2 millis", maxRetries: 0 })
        }
        const publish = (n: number, action: History.Action): History.Step => ({
          _tag: "Publish",
          message: { channel: "a.one", content: { n, plan: [action] } }
        })
        const subscribe: History.Step = {
          _tag: "Subscribe",
          group: "g1",
          options: { source: "a.one", from: "earliest", concurrency: 1, mode: "plain", expired: "drop" }
        }
        const history = {
          seed: 0,
          shards: 1,
          steps: [subscribe, publish(0, "ok"), publish(1, "fail"), publish(2, "ok")]
        }
        const [difference = { backend: "none", differences: [] }] = yield* compare(history, [memory, other])
        assert.strictEqual(difference.backend, "other")
        assert.include(difference.differences.join(), "handled of g1 a.one 1: [\"1 fail\",\"2 ok\"] and [\"1 fail\"]")
        assert.deepStrictEqual((yield* shrink(history, [memory, other])).steps, [subscribe, publish(1, "fail")])
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    60_000
  )
})
