/** Matching hostile patterns against hostile names, in steps counted by the engine, which do not depend on the machine. */
import { assert, describe, it } from "@effect/vitest"
import { Session } from "node:inspector/promises"
import { Channel } from "rotif"
import { compile } from "../../src/internal/pattern.ts"

/** How many blocks of the matcher (turns of its loops among them) have run, with the functions it is made of. */
const counting = async (run: () => void): Promise<number> => {
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true })
  run()
  const { result } = await session.post("Profiler.takePreciseCoverage")
  await session.post("Profiler.stopPreciseCoverage")
  session.disconnect()
  const script = result.find(({ url }) => url.endsWith("/src/internal/pattern.ts"))!
  return script.functions.flatMap(({ ranges }) => ranges).reduce((sum, { count }) => sum + count, 0)
}

const segments = (count: number, text: string) => Array.from({ length: count }, () => text)
const chain = segments(64, "**").join(".")
// Each begins to match everywhere and fails at the end.
const patterns: Record<string, string> = {
  "a chain of **": chain,
  "a chain of ** with an end": `${chain}.b`,
  "** between segments that occur everywhere": `${segments(63, "**.a").join(".")}.**.b`,
  "* and ** in turn": `${segments(32, "**.*").join(".")}.b`,
  "as many segments as fit": `**.${segments(510, "a").join(".")}`
}

describe("matching a pattern", () => {
  it.each(Object.entries(patterns))("takes a number of steps that the name bounds: %s", async (_, pattern) => {
    assert.isTrue(Channel.checkName(pattern, "pattern")._tag === "Success")
    const matches = compile(pattern)
    const words = (pattern.split(".").length >> 5) + 1
    for (const count of [64, 128, 256, 512]) {
      const name = segments(count, "a").join(".")
      let steps = 0
      // A name matches no faster or slower than another.
      for (const hostile of [name, `${name}.b`.slice(-1024)]) {
        steps = Math.max(steps, await counting(() => void matches(hostile)))
      }
      // One turn for each segment, one within it for each word of 32 places, and some for the call.
      assert.isAtMost(steps, count * (3 + 3 * words) + 50)
      // The engine has counted.
      assert.isAtLeast(steps, 1)
    }
  })

  it("takes at most some ten thousand steps, whatever the name and the pattern are", async () => {
    const pattern = `**.${segments(510, "a").join(".")}`
    assert.strictEqual(pattern.length, 1_022)
    const name = segments(512, "a").join(".")
    assert.strictEqual(name.length, 1_023)
    const matches = compile(pattern)
    let isMatch = false
    const steps = await counting(() => {
      isMatch = matches(name)
    })
    assert.isTrue(isMatch)
    assert.isAtMost(steps, 512 * (3 + 3 * 17) + 50)
  })
})
