/** Replies of Redis whose names and values take turns. */
import { assert, describe, it } from "@effect/vitest"
import { groupsIn } from "../../src/redisBroker/replies.ts"

describe("XINFO GROUPS", () => {
  it("a group may have the name of a field", () => {
    const reply = ["name", "pending", "lag"].map((
      name
    ) => ["name", name, "consumers", 1, "pending", 2, "last-delivered-id", "7-1", "entries-read", 3, "lag", 4])
    assert.deepStrictEqual(
      [...groupsIn(reply)],
      ["name", "pending", "lag"].map((name) => [name, { pending: 2, at: "7-1", lag: 4 }])
    )
  })
})
