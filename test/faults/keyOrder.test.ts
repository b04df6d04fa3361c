/** What the run of ordering keys relies on: its account reports each way in which a promise can be broken. */
import { assert, describe, it } from "@effect/vitest"
import { type Step, violationsOf } from "./KeyOrder.ts"

const steps = (...lines: ReadonlyArray<string>) =>
  lines.map((line) => {
    const [is, worker, text] = line.split(" ")
    return { is, worker, text } as Step
  })

describe("KeyOrder", () => {
  const stored = ["a-0", "b-0", "a-1"]
  const fine = steps("begin w a-0", "begin v b-0", "end w a-0", "begin v a-1", "end v b-0", "end v a-1")

  it("finds nothing wrong when each key is handled and settled in order", () => {
    assert.deepStrictEqual(violationsOf(stored, ["a-0", "a-1", "b-0"], fine), [])
  })

  it("reports messages that were not settled, or twice, or out of order", () => {
    assert.deepStrictEqual(violationsOf(stored, ["a-0", "b-0"], fine), ["order: 1 not settled: a-1"])
    assert.deepStrictEqual(violationsOf(stored, ["a-0", "b-0", "a-0", "a-1"], fine), ["order: 1 settled twice: a-0"])
    assert.deepStrictEqual(violationsOf(stored, ["a-1", "b-0", "a-0"], fine), [
      "order: 1 keys settled out of order: a-1"
    ])
  })

  it("reports two messages of a key that are handled at the same time, the same one by two included", () => {
    const settled = ["a-0", "b-0", "a-1"]
    for (const second of ["a-0", "a-1"]) {
      const found = violationsOf(
        stored,
        settled,
        steps("begin w a-0", `begin v ${second}`, "end w a-0", `end v ${second}`)
      )
      assert.deepStrictEqual(found, [`order: 1 handled at the same time: ${second} by v while w was at a-0`])
    }
  })

  it("excuses a handler whose worker is gone, or that was interrupted because its lease was lost", () => {
    const settled = ["a-0", "b-0", "a-1"]
    assert.deepStrictEqual(
      violationsOf(stored, settled, steps("begin w a-0", "gone w", "begin v a-0", "end v a-0")),
      []
    )
    const woken = steps("begin w a-0", "gone w", "begin v a-0", "end w a-0", "end v a-0")
    assert.deepStrictEqual(violationsOf(stored, settled, woken), [])
    const lost = steps("begin w a-0", "begin v a-0", "lost w a-0", "end v a-0")
    assert.deepStrictEqual(violationsOf(stored, settled, lost), [])
  })

  it("reports a message that begins after a later one of its key", () => {
    const found = violationsOf(stored, stored, steps("begin w a-1", "end w a-1", "begin w a-0", "end w a-0"))
    assert.deepStrictEqual(found, ["order: 1 begun after a later one: a-0 after a-1"])
    // The same one again is no step back.
    assert.deepStrictEqual(
      violationsOf(stored, stored, steps("begin w a-0", "end w a-0", "begin w a-0", "end w a-0")),
      []
    )
  })
})
