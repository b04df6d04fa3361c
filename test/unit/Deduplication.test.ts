/** The store of `Deduplication` in memory; contract/deduplication.ts has the rest. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Deduplication } from "rotif"

describe("Deduplication.layerMemory", () => {
  it.effect("forgets the least recently read key when it is full, and never a key in progress", () =>
    Effect.gen(function*() {
      const { step } = yield* Deduplication.Deduplication
      yield* step("begin", "held", { text: "t" }, 60_000)
      const once = (key: string) => Effect.map(Deduplication.once(key, "1 hour", Effect.void), ({ _tag }) => _tag)
      for (const key of ["a", "b"]) assert.strictEqual(yield* once(key), "Done")
      // "a" is read, so that "b" is the least recent.
      assert.strictEqual(yield* once("a"), "Duplicate")
      assert.strictEqual(yield* once("c"), "Done")
      assert.strictEqual(yield* once("a"), "Duplicate")
      assert.strictEqual(yield* once("b"), "Done")
      assert.instanceOf(yield* Effect.flip(Deduplication.once("held", 1, Effect.void)), Deduplication.InProgress)
    }).pipe(Effect.provide(Deduplication.layerMemory({ capacity: 3 }))))
})
