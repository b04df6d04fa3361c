/** What the fault runs rely on: the account reports what is wrong, and a repetition reports what its process leaves behind. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { environmentFor, exactNow } from "./clock.ts"
import { repeat } from "./process.ts"
import { type Handled, Recorder } from "./Recorder.ts"

const handled = (text: string, more: Partial<Handled> = {}): Handled => ({
  group: "a",
  consumer: "c",
  channel: "work",
  text,
  deliveryCount: 1,
  at: 1_000,
  ...more
})

describe("Recorder", () => {
  it("finds nothing wrong when every group has handled all of it in order", () => {
    const recorder = new Recorder()
    for (const text of ["p-0", "p-1"]) {
      recorder.told(text)
      for (const group of ["a", "b"]) recorder.handled(handled(text, { group }))
    }
    assert.deepStrictEqual(recorder.account({ groups: ["a", "b"], ordered: ["c"] }), {
      messages: 2,
      lost: 0,
      repeated: 0,
      violations: []
    })
  })

  it("reports messages that a group has not handled, unless they are kept elsewhere", () => {
    const recorder = new Recorder()
    recorder.told("p-0")
    recorder.told("p-1")
    recorder.handled(handled("p-0"))
    recorder.handled(handled("p-0", { group: "b" }))
    recorder.handled(handled("p-1"))
    const { lost, violations } = recorder.account({ groups: ["a", "b"] })
    assert.strictEqual(lost, 1)
    assert.deepStrictEqual(violations, ["I1: 1 lost: p-1 for b"])
    const isKept = (group: string, text: string) => group === "b" && text === "p-1"
    assert.deepStrictEqual(recorder.account({ groups: ["a", "b"], isKept }).violations, [])
  })

  it("expects nothing of a message that may have been cancelled", () => {
    const recorder = new Recorder()
    recorder.told("p-0", 1_000)
    recorder.unsure("p-0")
    assert.strictEqual(recorder.account({ groups: ["a"] }).lost, 0)
  })

  it("counts messages that were handled again", () => {
    const recorder = new Recorder()
    recorder.told("p-0")
    recorder.handled(handled("p-0"))
    recorder.handled(handled("p-0", { deliveryCount: 2 }))
    assert.strictEqual(recorder.account({ groups: ["a"] }).repeated, 1)
  })

  it("reports a message that is handled once more after one who lives on came to its end", () => {
    const recorder = new Recorder()
    recorder.told("p-0")
    recorder.handled(handled("p-0", { consumer: "killed" }))
    recorder.handled(handled("p-0", { deliveryCount: 2 }))
    const once = { groups: ["a"], mayRepeat: (consumer: string) => consumer === "killed" }
    assert.deepStrictEqual(recorder.account({ groups: ["a"], once }).violations, [])
    recorder.handled(handled("p-0", { consumer: "killed", deliveryCount: 3 }))
    assert.deepStrictEqual(recorder.account({ groups: ["a"], once }).violations, [
      "I2: 1 handled again after their end: p-0"
    ])
  })

  it("reports disorder at first deliveries of a publisher, to a consumer whose order is promised", () => {
    const recorder = new Recorder()
    for (const text of ["p-0", "p-1", "q-0"]) recorder.told(text)
    for (const text of ["p-1", "q-0", "p-0"]) recorder.handled(handled(text))
    assert.deepStrictEqual(recorder.account({ groups: ["a"], ordered: ["c"] }).violations, [
      "I3: 1 out of order: p-0 after 1"
    ])
    assert.deepStrictEqual(recorder.account({ groups: ["a"] }).violations, [])
  })

  it("sees no disorder in a redelivery, nor in a message that was delayed", () => {
    const recorder = new Recorder()
    recorder.told("p-0")
    recorder.told("p-1", 900)
    recorder.told("p-2")
    recorder.handled(handled("p-2"))
    recorder.handled(handled("p-1"))
    recorder.handled(handled("p-0", { deliveryCount: 2 }))
    assert.deepStrictEqual(recorder.account({ groups: ["a"], ordered: ["c"] }).violations, [])
  })

  it("reports a message that is handled before it is due", () => {
    const recorder = new Recorder()
    recorder.told("p-0", 1_001)
    recorder.told("p-1", 1_000)
    recorder.handled(handled("p-0"))
    recorder.handled(handled("p-1"))
    assert.deepStrictEqual(recorder.account({ groups: ["a"] }).violations, ["I4: 1 early: p-0 by 1 ms"])
  })

  it("knows the messages that a consumer holds, and when another one began with them", () => {
    const recorder = new Recorder()
    recorder.begun(handled("p-0"))
    recorder.begun(handled("p-1"))
    recorder.handled(handled("p-1"))
    assert.deepStrictEqual(recorder.heldBy("c"), ["p-0"])
    assert.strictEqual(recorder.begunAfter(1_000, "a", "p-0"), undefined)
    recorder.begun(handled("p-0", { consumer: "d", at: 2_000 }))
    assert.strictEqual(recorder.begunAfter(1_000, "a", "p-0"), 2_000)
    assert.deepStrictEqual(recorder.heldBy("c"), [])
  })
})

describe("a repetition", () => {
  const reports = (
    what: string,
    run: string,
    expected: ReadonlyArray<RegExp>,
    limits: { readonly timeoutMillis?: number; readonly endMillis?: number } = {}
  ) =>
    it.concurrent(`reports ${what}`, async () => {
      const { violations } = await Effect.runPromise(
        repeat({ run: `../../fixtures/faulty/${run}`, seed: 1, isShort: true, timeoutMillis: 30_000, ...limits })
      )
      assert.strictEqual(violations.length, expected.length, violations.join("\n"))
      for (const [i, pattern] of expected.entries()) assert.match(violations[i]!, pattern)
    }, 60_000)

  reports("nothing of a run in which nothing is wrong", "sound", [])
  reports("a rejection that nobody handles", "rejection", [/^I6: a rejection .*unnoticed/])
  reports("an exception that nobody catches", "exception", [/^I6: an exception .*uncaught/])
  reports("a timer that is left", "timer", [/^I6: the process does not end/], { endMillis: 1_000 })
  reports("a socket that is left", "socket", [/^I6: the process does not end/], { endMillis: 1_000 })
  reports("a fiber that is left", "fiber", [/^I6: 1 fibers are left/])
  reports("the end of the process", "exit", [/^I6: the process ended by exit code 3/])
  reports("a run that does not end", "endless", [/^did not end within 3000 ms/], { timeoutMillis: 3_000 })
  reports("too much memory", "memory", [/^I7: \d+ MiB, more than 150/])
  reports("a slow recovery", "slow", [/^I8: recovered after 501 ms, more than 500/])
  reports("that no fault was injected", "idle", [/^no fault was injected/])
  reports("that the run failed", "failing", [/^the run failed: .*would not start/, /^no fault was injected/])
})

describe("exactNow", () => {
  it("is one clock in all processes, also in those whose time of day is wrong", async () => {
    const clock = join(import.meta.dirname, "./clock.ts")
    const others = [0, 3_600_000].map((shiftMillis) =>
      spawn(
        process.execPath,
        [
          "--input-type=module",
          "--eval",
          `import { exactNow } from ${JSON.stringify(clock)}; process.on("message", () => process.send(exactNow()))`
        ],
        {
          env: { ...process.env, ...environmentFor({ shiftMillis }) },
          stdio: ["ignore", "inherit", "inherit", "ipc"]
        }
      )
    )
    try {
      const wrong: Array<string> = []
      for (let i = 0; i < 100; i++) {
        for (const other of others) {
          const before = exactNow()
          other.send("")
          const [said] = await once(other, "message") as [number]
          const after = exactNow()
          if (said < before || said > after) wrong.push(`${said - before} of ${after - before} ms`)
        }
      }
      assert.deepStrictEqual(wrong, [])
    } finally {
      for (const other of others) other.kill()
    }
  })
})
