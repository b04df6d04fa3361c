/** Declares a test that plays random histories with new seeds, and expects the same outcome on every backend. */
import { assert, it } from "@effect/vitest"
import { Effect, References } from "effect"
import { inject } from "vitest"
import { backendsOn } from "./backends.ts"
import { compare } from "./compare.ts"
import * as History from "./history.ts"

export const playHistories = (count: number): void => {
  const backends = backendsOn(inject("redisPort"), inject("clusterPorts"))
  it.live(`do the same in ${count} random histories`, () =>
    Effect.gen(function*() {
      const first = Math.floor(Math.random() * 2 ** 30)
      const seeds = Array.from({ length: count }, (_, i) => first + i)
      yield* Effect.forEach(seeds, (seed) =>
        Effect.gen(function*() {
          const found = yield* compare(yield* History.make(seed), backends)
          assert.deepStrictEqual(found, [], `repeat it with: npm run fuzz -- --seed ${seed} --times 1 --show`)
        }), { concurrency: 4, discard: true })
      // Handlers fail by design.
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None")), 120_000)
}
