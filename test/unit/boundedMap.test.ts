import { assert, describe, it } from "@effect/vitest"
import { Bounded } from "../../src/internal/boundedMap.ts"

describe("Bounded", () => {
  it("forgets the oldest entry when it is full, and only then", () => {
    const map = new Bounded<string, number>(3)
    for (const [i, name] of ["a", "b", "c", "a"].entries()) map.set(name, i)
    assert.deepStrictEqual([...map], [["a", 3], ["b", 1], ["c", 2]])
    map.set("d", 4)
    assert.deepStrictEqual([...map.keys()], ["b", "c", "d"])
    for (let i = 0; i < 10_000; i++) map.set(String(i), i)
    assert.strictEqual(map.size, 3)
  })
})
