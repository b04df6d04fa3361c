/** The chain of transactions under SIGKILL, in short; `npm run faults:chain` is the long one. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { run } from "./faults/chain.ts"

describe("a chain of transactions, its processes killed and its connections cut", () => {
  it.live("takes every message from its beginning to its end exactly once", () =>
    Effect.gen(function*() {
      const account = yield* run({ messages: 1_000, kills: 5, cuts: 5, seed: 20_260 })
      assert.deepStrictEqual(account, {
        effects: 1_000,
        repeated: 0,
        counted: [1_000, 1_000, 1_000],
        dead: 0,
        left: 0,
        kills: 5,
        cuts: 5
      })
    }), 120_000)
})
