/** Plays fault runs as tests, each once, in its short version and with a new seed; `npm run faults` repeats the long ones. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { repeat } from "./process.ts"
import type { Run } from "./Run.ts"

/** Most of a run is waiting for leases and elections: they wait side by side. */
export const playOnce = (runs: ReadonlyArray<readonly [name: string, run: Run]>): void => {
  describe("a fault run loses nothing:", () => {
    for (const [name, { title }] of runs) {
      it.concurrent(`${title} (${name})`, async () => {
        const seed = Math.floor(Math.random() * 2 ** 30)
        const { messages, violations } = await Effect.runPromise(
          repeat({ run: name, seed, isShort: true, timeoutMillis: 90_000 })
        )
        const again = `npm run faults -- --run ${name} --short --times 1 --seed ${seed}`
        assert.deepStrictEqual(violations, [], `repeat it with: ${again}`)
        assert.isAbove(messages, 0)
      }, 120_000)
    }
  })
}
