/** Every example runs as its first lines say, in memory and on Redis, prints what it should, and ends by itself. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { globSync } from "node:fs"
import { join } from "node:path"
import { inject } from "vitest"
import * as Program from "../fixtures/Program.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"

const expected: Readonly<Record<string, ReadonlyArray<string>>> = {
  "examples/01-publish-subscribe.ts": [
    "Published: order-o-1 on orders.placed",
    "Duplicate: order-o-1 on orders.placed",
    "charged 42 for o-1 of 2026",
    "told user 42: your order is on its way",
    "published 3 more",
    "charged 10 for o-2 of 2026",
    "charged 10 for o-3 of 2026",
    "charged 10 for o-4 of 2026"
  ],
  "examples/02-groups.ts": [
    "mail handled o-1 o-2 o-3 o-4 o-5 o-6",
    "billing handled o-1 o-2 o-4 o-5 o-6 with 2 consumers",
    "attempts at o-1: 1, at o-5: 3",
    "given up by mail: 0, by billing: 1"
  ],
  "examples/03-wildcard.ts": [
    "audit: orders.eu.placed",
    "audit: orders.eu.refunded",
    "audit: orders.us.placed",
    "europe: o-1 came back, damaged",
    "europe: o-1 costs 42",
    "totals: 42 on orders.eu.placed",
    "totals: 7 on orders.us.placed"
  ],
  "examples/04-testing.ts": [
    "after 59 minutes: 1 attempt",
    "after 1 hour: 2 attempts",
    "after 3 hours: 3 attempts, and the mail is sent",
    "after 1 day: a dead letter of \"mail\", exhausted after 3 attempts"
  ],
  "examples/05-retry.ts": [
    "journal: ada is noted",
    "ada: attempts 1 2",
    "busy: attempts 1 2",
    "wrong: attempts 1",
    "deaf: attempts 1 2 3",
    "bug: attempts 1 2 3",
    "given up: {\"to\":\"bug\"} exhausted, TypeError, a defect",
    "given up: {\"to\":\"deaf\"} exhausted, NoAnswer",
    "given up: {\"to\":\"wrong\"} term, WrongNumber"
  ],
  "examples/06-dead-letters.ts": [
    "mail o-1; mail o-2; stock o-1; stock o-2; tax o-1, attempt 1",
    "tax gave up {\"id\":\"o-2\",\"country\":\"??\"} after 2 attempts: no rate for \"??\"",
    "requeued: tax o-2, attempt 1",
    "the others saw: mail o-3; mail o-4; stock o-3; stock o-4",
    "archived: {\"id\":\"o-3\",\"country\":\"??\"}",
    "left: 1 of tax on orders.placed, exhausted"
  ],
  "examples/07-delayed.ts": [
    "the tea: Scheduled",
    "that was yesterday",
    "stand up",
    "the tea is ready",
    "not early: true",
    "cancelled: true",
    "postponed: true",
    "delivered now: true",
    "cinema",
    "too late to cancel: true",
    "1 waits: taxes"
  ],
  "examples/08-recurring.ts": [
    "the daily report comes at 9",
    "beats: 3, 0 100 200 ms after the first",
    "defined: beat daily",
    "removed: true, again: false",
    "then comes: last"
  ],
  "examples/09-middleware.ts": [
    "attempt 1, from eu",
    "charged",
    "o-1 of ada",
    "refused: too many from greedy",
    "refused: publish on \"orders.placed\": an order costs something"
  ],
  "examples/10-telemetry.ts": [
    "span: checkout",
    "span: publish orders.placed",
    "span: process orders.placed",
    "span: charge",
    "the span of handling links to the one of the publish",
    "metric: messaging_client_sent_messages 1",
    "metric: messaging_process_duration_count 1"
  ],
  "examples/11-health.ts": [
    "live: 200",
    "ready: 200",
    "3 published = 0 done + 1 being packed + 0 dead + 2 to come",
    "ready: 503 StuckHandler",
    "live: 200",
    "3 published = 2 done + 0 being packed + 1 dead + 0 to come",
    "ready: 200"
  ],
  "examples/12-pubsub.ts": [
    "ACME costs 4200 since 7 o'clock",
    "ann is typing (rooms.lobby.typing)",
    "count 0",
    "count 1",
    "count 2",
    "7 dropped"
  ],
  "examples/13-transaction.ts": [
    "o-1: Published",
    "o-2: Published",
    "o-1: Duplicate",
    "shipped o-1 o-2",
    "turnover \"42\"",
    "report sent in round 1",
    "round 1: Done",
    "round 2: Duplicate"
  ],
  "examples/14-sql-inbox.ts": [
    "attempt 1: booked",
    "attempt 2: was booked before",
    "alice has 500 cents"
  ],
  "examples/15-tenants.ts": [
    "acme: Published, acme prints i-1",
    "globex: Published, globex prints i-1",
    "globex: there is none",
    "acme: the reminder is cancelled"
  ],
  "examples/16-batches.ts": [
    "insert 1 2 3 4 5 6 7 8",
    "insert 1 2 3 4",
    "insert 5 6 7 8",
    "insert 1 2",
    "insert 3 4",
    "insert 3",
    "insert 4",
    "given up: {\"id\":3,\"amount\":10}: constraint violated",
    "insert 10",
    "given up: {\"id\":9,\"amount\":-1}: a negative amount",
    "stored 1 2 4 5 6 7 8 10"
  ],
  "examples/17-ordering.ts": [
    "bob: b-1, attempt 1",
    "bob: b-2, attempt 1",
    "alice: a-1, attempt 2",
    "alice: a-2, attempt 1"
  ],
  "examples/18-groups.ts": [
    "quiet: nothing of billing is handled, in any process",
    "billing: 1 waits; migration of the ledger, by ops",
    "it goes on",
    "charged o-1"
  ]
}

const files = Object.keys(expected)
// It is about the memory broker.
const onRedis = files.filter((file) => !file.includes("testing"))

const url = `redis://127.0.0.1:${inject("redisPort")}`

/** What it printed, but for what the log says about the server of the tests. */
const printed = (stdout: string) => stdout.trimEnd().split("\n").filter((line) => !line.includes("Redis keeps nothing"))

describe("examples", () => {
  it("are all listed here", () => {
    const found = globSync("examples/[0-9]*.ts", { cwd: join(import.meta.dirname, "../..") })
    assert.deepStrictEqual(found.toSorted(), files)
  })

  it.live.each(files)("%s runs in memory", (file) =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Program.run(file)
      assert.deepStrictEqual({ code, stderr, lines: stdout.trimEnd().split("\n") }, {
        code: 0,
        stderr: "",
        lines: expected[file]
      })
    }), 60_000)

  it.live.each(onRedis)("%s runs on Redis", (file) =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Program.run(file, { redisUrl: url })
      assert.deepStrictEqual({ code, stderr, lines: printed(stdout) }, { code: 0, stderr: "", lines: expected[file] })
    }), 60_000)

  it.live("leave nothing behind on Redis", () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      assert.strictEqual((yield* Program.run("examples/02-groups.ts", { redisUrl: server.url })).code, 0)
      assert.strictEqual(yield* server.command("dbsize"), 0)
    }), 60_000)
})
