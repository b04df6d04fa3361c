/** The demo: its account adds up, in memory and on Redis, and it would say so if it did not. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { inject } from "vitest"
import * as Account from "../../examples/demo/account.ts"
import * as Program from "../fixtures/Program.ts"
import type { DeadLetter } from "rotif"

const url = `redis://127.0.0.1:${inject("redisPort")}`

const promises = (redisUrl: string | undefined, inWords: string, loss: RegExp) =>
  Effect.gen(function*() {
    const { code, stderr, stdout } = yield* Program.run("examples/demo/main.ts", { redisUrl, timeoutMillis: 60_000 })
    assert.strictEqual(code, 0, `${stdout}\n${stderr}`)
    assert.include(stdout, `read 310 lines, working ${inWords}`)
    assert.match(stdout, loss)
    assert.include(stdout, "shipping has taken over all 20 lost orders")
    assert.include(stdout, "29 refunds are scheduled, in 500 ms")
    assert.include(stdout, "billing tried 12 orders again")
    assert.include(stdout, "6 of 10 dead letters go back to shipping, and to nobody else")
    assert.include(stdout, "published 295 (266 orders, 29 refunds), not JSON 7, not an order 8; together 310 of 310")
    assert.match(stdout, /billing +266 +258 +8 +12 +0 +258 \+ 8 = 266/)
    assert.match(stdout, /shipping +266 +262 +4 +0 +2\d +262 \+ 4 = 266/)
    assert.match(stdout, /audit +295 +295 +0 +0 +0 +295 \+ 0 = 295/)
    assert.include(stdout, "billing    CardDeclined: insufficient funds (8)")
    assert.include(stdout, "shipping   NoCarrier: nobody ships to Antarctica (4)")
    assert.include(stdout, "The account adds up")
  })

describe("npm run demo", () => {
  it.live(
    "adds up in memory",
    () => promises(undefined, "in memory", /a consumer of "shipping" took 20 orders and was never heard of again/),
    90_000
  )

  it.live(
    "adds up on Redis, where a process is killed",
    () =>
      promises(url, "on Redis", /process \d+, a consumer of "shipping", took 20 orders and was killed with SIGKILL/),
    90_000
  )
})

describe("the account of the demo", () => {
  const account = (handled: ReadonlyArray<string>, dead: ReadonlyArray<string>) => {
    const group = Account.makeGroup("g", new Set(["a", "b", "c"]))
    for (const id of handled) group.handled.add(id)
    const letter = (id: string, group: string) =>
      ({ id, group, failure: { reason: "term", message: "m" } }) as DeadLetter.DeadLetter
    return Account.rowOf(group, [...dead.map((id) => letter(id, "g")), letter("other", "another group")])
  }

  it("adds up when every message was handled or is dead", () => {
    const row = account(["a", "b"], ["c"])
    assert.isTrue(row.addsUp)
    assert.include(Account.table([row]).join("\n"), "2 + 1 = 3")
  })

  it.each([
    ["a message is missing", ["a"], ["c"]],
    ["a message was handled and is dead", ["a", "b", "c"], ["c"]],
    ["a message was never published", ["a", "b", "x"], []],
    ["one is missing and another too many", ["a", "b"], ["b"]]
  ])("does not add up when %s", (_, handled, dead) => {
    const row = account(handled, dead)
    assert.isFalse(row.addsUp)
    assert.include(Account.table([row]).join("\n"), "DOES NOT ADD UP")
  })
})
