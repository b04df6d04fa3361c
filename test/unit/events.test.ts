/** Scripts publish the events that `redisBroker/eventNames.ts` names, and each of them is published by a script. */
import { assert, describe, it } from "@effect/vitest"
import { memberEvents, signalEvents } from "../../src/redisBroker/eventNames.ts"
import { scripts } from "../fixtures/scripts.ts"

describe("events", () => {
  it("have the names that the scripts publish", () => {
    const published = new Set<string>()
    for (const { script } of scripts) {
      for (const [, event] of script.lua.matchAll(/'PUBLISH', events, '([^'\\]*)/g)) published.add(event!)
    }
    assert.deepStrictEqual([...published].sort(), Object.values({ ...memberEvents, ...signalEvents }).sort())
  })
})
