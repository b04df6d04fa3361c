/**
 * The scripts that move dead letters, against the whole keyspace, each of them twice; and letters that another program wrote.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Schema } from "effect"
import { Redis } from "ioredis"
import type { DeadLetter } from "rotif"
import { Broker, Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import { concludeLetters } from "../../src/redisBroker/scripts/deadLetters/conclude.ts"
import { offerLetters } from "../../src/redisBroker/scripts/deadLetters/offer.ts"
import { removeLetters } from "../../src/redisBroker/scripts/deadLetters/remove.ts"
import { requeueLetters } from "../../src/redisBroker/scripts/deadLetters/requeue.ts"
import { settle } from "../../src/redisBroker/scripts/member/settle.ts"
import type { Script } from "../../src/Redis.ts"
import * as Keyspace from "../fixtures/Keyspace.ts"
import { namesOf } from "../fixtures/scripts.ts"
import { freshPrefix } from "../contract/kit.ts"

const port = inject("redisPort")
const client = new Redis({ port, protocol: 2, lazyConnect: true })
afterAll(() => client.quit())

interface Place {
  readonly keys: Keys.Keys
  readonly run: (script: Script, keys: ReadonlyArray<string>, args: ReadonlyArray<string | number>) => Promise<unknown>
  readonly snapshot: () => Promise<Keyspace.Contents>
}

const place = (): Place => {
  const keys = Keys.make(freshPrefix(), 0)
  const { dump, during } = Keyspace.open(client, keys.meta.slice(0, -"meta".length))
  return {
    keys,
    run: (script, names, args) => during(() => client.eval(script.lua, names.length, ...names, ...args)),
    snapshot: async () =>
      Keyspace.withStreams(await dump(), ({ entries, groups }) => {
        const found = entries.map(([position, ...fields]) => [position, Keyspace.fieldsOf(fields)])
        return groups === undefined ? found : { entries: found, groups: Object.keys(groups) }
      })
  }
}

it("every script of dead letters has its cases here", () => {
  assert.deepStrictEqual(
    namesOf("deadLetters"),
    [concludeLetters, offerLetters, removeLetters, requeueLetters].map(({ name }) => name)
  )
})

const key = "billing\norders\nexhausted"

/** Two letters of billing, one of audit, one that somebody else wrote. */
const seeded = async () => {
  const here = place()
  const { counts, dead } = here.keys
  await client.xadd(dead, "1-0", "k", key, "b", "first\n1")
  await client.xadd(dead, "2-0", "k", key, "b", "second\n2")
  await client.xadd(dead, "3-0", "k", "audit\norders\nterm", "b", "third\n3")
  await client.xadd(dead, "4-0", "what", "ever")
  await client.hset(counts, `d\n${key}`, 2, "d\naudit\norders\nterm", 1, "w\nbilling\norders", 7)
  return here
}

const first = ["1-0", { k: key, b: "first\n1" }]
const second = ["2-0", { k: key, b: "second\n2" }]
const third = ["3-0", { k: "audit\norders\nterm", b: "third\n3" }]
const fourth = ["4-0", { what: "ever" }]

describe("settle: dead", () => {
  it("acknowledges, writes the letter and counts it, once", async () => {
    const { keys, run, snapshot } = place()
    const log = keys.log("orders")
    await client.xadd(log, "1-0", "i", "m", "p", "x")
    await client.xgroup("CREATE", log, "billing", "0")
    await client.xreadgroup("GROUP", "billing", "me", "STREAMS", log, ">")
    const names = [
      log,
      keys.retry("billing", "orders"),
      keys.waiting,
      keys.bodies("billing", "orders"),
      keys.dead,
      keys.retries("billing"),
      keys.meta,
      keys.counts,
      keys.trials("billing", "orders")
    ]
    const args = ["billing", "me", "orders", keys.events, 0, "1-0", 1, "dead", key, "description\nx", "", "", ""]
    assert.deepStrictEqual(await run(settle, names, args), [])
    const after = {
      "log:orders": { entries: [["1-0", { i: "m", p: "x" }]], groups: ["billing"] },
      dead: [["new", { k: key, b: "description\nx" }]],
      counts: { [`d\n${key}`]: "1", "b\nbilling\norders": "1", "f\nbilling\norders": "1" }
    }
    assert.deepStrictEqual(await snapshot(), after)
    assert.deepStrictEqual(await client.xpending(log, "billing"), [0, null, null, null])
    assert.deepStrictEqual(await run(settle, names, args), ["1-0"])
    assert.deepStrictEqual(await snapshot(), after)
  })

  it("touches nothing when a key is of another type", async () => {
    const { keys, run, snapshot } = place()
    const log = keys.log("orders")
    await client.xadd(log, "1-0", "i", "m", "p", "x")
    await client.xgroup("CREATE", log, "billing", "0")
    await client.xreadgroup("GROUP", "billing", "me", "STREAMS", log, ">")
    await client.set(keys.counts, "not a hash")
    const before = await snapshot()
    const names = [
      log,
      keys.retry("billing", "orders"),
      keys.waiting,
      keys.bodies("billing", "orders"),
      keys.dead,
      keys.retries("billing"),
      keys.meta,
      keys.counts,
      keys.trials("billing", "orders")
    ]
    const error = await run(settle, names, [
      "billing",
      "me",
      "orders",
      keys.events,
      0,
      "1-0",
      1,
      "dead",
      key,
      "d\nx",
      "",
      "",
      ""
    ]).catch((error: unknown) => error)
    assert.match(String(error), /WRONGTYPE.*counts is a string, expected a hash/)
    assert.deepStrictEqual(await snapshot(), before)
    assert.strictEqual(((await client.xpending(log, "billing")) as Array<unknown>)[0], 1)
  })
})

describe("requeueLetters", () => {
  const keysOf = ({ keys }: Place) => [
    keys.dead,
    keys.counts,
    keys.meta,
    keys.retry("billing", "orders"),
    keys.retries("billing"),
    keys.retry("audit", "orders"),
    keys.retries("audit")
  ]
  const argsOf = ({ keys }: Place) =>
    [
      keys.events,
      2,
      "billing",
      "orders",
      "audit",
      "orders",
      ["2-0", 1, "exhausted", "anew\nedited"],
      ["3-0", 2, "term", "anew\n3"],
      ["9-0", 1, "term", "gone\n9"]
    ].flat()
  const after = {
    dead: [first, fourth],
    counts: { [`d\n${key}`]: "1", "w\nbilling\norders": "7" },
    meta: { v: "2" },
    "retries:billing": ["orders"],
    "retries:audit": ["orders"],
    "retry:billing:orders": { entries: [["new", { b: "anew\nedited" }]], groups: ["billing"] },
    "retry:audit:orders": { entries: [["new", { b: "anew\n3" }]], groups: ["audit"] }
  }

  it("moves letters into the retry streams of their groups, and counts them off; a second time finds them gone", async () => {
    const here = await seeded()
    await client.hset(here.keys.meta, "v", "0")
    assert.deepStrictEqual(await here.run(requeueLetters, keysOf(here), argsOf(here)), ["2-0", "3-0"])
    assert.deepStrictEqual(await here.snapshot(), after)
    assert.deepStrictEqual(await here.run(requeueLetters, keysOf(here), argsOf(here)), [])
    assert.deepStrictEqual(await here.snapshot(), after)
  })

  it("keeps a retry stream that is there, and tells nobody of it again", async () => {
    const here = await seeded()
    const retry = here.keys.retry("billing", "orders")
    await client.xgroup("CREATE", retry, "billing", "0", "MKSTREAM")
    await client.sadd(here.keys.retries("billing"), "orders")
    await here.run(requeueLetters, keysOf(here).slice(0, 5), [
      here.keys.events,
      1,
      "billing",
      "orders",
      "1-0",
      1,
      "term",
      "m\np"
    ])
    const found = await here.snapshot()
    assert.isUndefined(found["meta"])
    assert.deepStrictEqual(found["retry:billing:orders"], {
      entries: [["new", { b: "m\np" }]],
      groups: ["billing"]
    })
  })

  it("touches nothing when a target is of another type", async () => {
    const here = await seeded()
    await client.set(here.keys.retry("audit", "orders"), "in the way")
    const before = await here.snapshot()
    const error = await here.run(requeueLetters, keysOf(here), argsOf(here)).catch((error: unknown) => error)
    assert.match(String(error), /WRONGTYPE.*retry:audit:orders is a string, expected a stream/)
    assert.deepStrictEqual(await here.snapshot(), before)
  })
})

describe("removeLetters", () => {
  it("ends after about 1 MiB, and says how far it has come", async () => {
    const { keys, run } = await seeded()
    for (const id of ["5-0", "6-0", "7-0"]) {
      await client.xadd(keys.dead, id, "k", key, "b", `{}\n${"x".repeat(600_000)}`)
    }
    assert.deepStrictEqual(await run(removeLetters, [keys.dead, keys.counts], ["5-0", "6-0", "7-0"]), [2, "5-0", "6-0"])
  })

  it("deletes letters and counts them off, whoever wrote them; a second time finds nothing", async () => {
    const { keys, run, snapshot } = await seeded()
    const names = [keys.dead, keys.counts]
    assert.deepStrictEqual(await run(removeLetters, names, ["1-0", "4-0", "9-0", "2-0"]), [4, "1-0", "4-0", "2-0"])
    const after = {
      dead: [third],
      counts: { "d\naudit\norders\nterm": "1", "w\nbilling\norders": "7", "x\nbilling\norders": "2" }
    }
    assert.deepStrictEqual(await snapshot(), after)
    assert.deepStrictEqual(await run(removeLetters, names, ["1-0", "4-0", "9-0", "2-0"]), [4])
    assert.deepStrictEqual(await snapshot(), after)
  })
})

describe("offerLetters and concludeLetters", () => {
  const offer = ({ keys, run }: Place, limit: number, token: string, start = "earliest", lease = 60_000) =>
    run(offerLetters, [keys.dead, keys.offers("ops"), keys.offered("ops")], [limit, lease, token, start])
  const conclude = ({ keys, run }: Place, ...args: ReadonlyArray<string | number>) =>
    run(
      concludeLetters,
      [keys.dead, keys.counts, keys.offers("ops"), keys.offered("ops")],
      [keys.events, ...args]
    )

  it("leases letters in order, then has no more", async () => {
    const here = await seeded()
    const dead = [first, second, third, fourth]
    const { counts } = await here.snapshot()
    const [letters, next] = (await offer(here, 2, "t1")) as [Array<Array<unknown>>, number]
    assert.deepStrictEqual(letters.map(([id, count]) => [id, count]), [["1-0", 1], ["2-0", 1]])
    assert.deepStrictEqual(letters[0]![2], ["k", key, "b", "first\n1"])
    assert.isAtMost(next, 60_000)
    assert.deepStrictEqual(await here.snapshot(), {
      dead,
      counts,
      "offers:ops": { "1-0": "now+60s", "2-0": "now+60s" },
      "offered:ops": { cursor: "2-0", "1-0": "1\nt1", "2-0": "1\nt1" }
    })
    const [rest] = (await offer(here, 10, "t2")) as [Array<Array<unknown>>]
    assert.deepStrictEqual(rest.map(([id]) => id), ["3-0", "4-0"])
    assert.deepStrictEqual(((await offer(here, 10, "t3")) as Array<unknown>)[0], [])
  })

  it("begins a new name with the next letter when it is told so", async () => {
    const here = await seeded()
    assert.deepStrictEqual(await offer(here, 10, "t", "latest"), [[], -1])
    assert.deepStrictEqual((await here.snapshot())["offered:ops"], { cursor: "4-0" })
    await client.xadd(here.keys.dead, "5-0", "what", "ever")
    assert.deepStrictEqual(((await offer(here, 10, "t", "latest")) as [Array<Array<unknown>>])[0].map(([id]) => id), [
      "5-0"
    ])
  })

  it("offers again what is free, counted on, and forgets what is gone", async () => {
    const here = await seeded()
    await offer(here, 2, "t1")
    await client.zadd(here.keys.offers("ops"), 5, "1-0", 6, "2-0")
    await client.xdel(here.keys.dead, "2-0")
    const [letters] = (await offer(here, 2, "t2")) as [Array<Array<unknown>>]
    assert.deepStrictEqual(letters.map(([id, count]) => [id, count]), [["1-0", 2], ["3-0", 1]])
    assert.deepStrictEqual((await here.snapshot())["offered:ops"], { cursor: "3-0", "1-0": "2\nt2", "3-0": "1\nt2" })
  })

  it("concludes by token: removes, keeps, offers again, gives back, renews; a second time is refused, but for the renewal", async () => {
    const here = await seeded()
    await client.xadd(here.keys.dead, "5-0", "what", "ever")
    await offer(here, 10, "t")
    const args = [
      ["1-0", "t", "remove", 0],
      ["2-0", "t", "keep", 0],
      ["3-0", "t", "again", 30_000],
      ["4-0", "t", "release", 0],
      ["5-0", "t", "renew", 90_000],
      ["9-0", "t", "remove", 0]
    ].flat()
    assert.deepStrictEqual(await conclude(here, ...args), [6, "9-0"])
    const after = {
      dead: [second, third, fourth, ["5-0", { what: "ever" }]],
      counts: {
        [`d\n${key}`]: "1",
        "d\naudit\norders\nterm": "1",
        "w\nbilling\norders": "7",
        "x\nbilling\norders": "1"
      },
      "offers:ops": { "3-0": "now+30s", "4-0": "now", "5-0": "now+90s" },
      "offered:ops": { cursor: "5-0", "3-0": "1\n", "4-0": "0\n", "5-0": "1\nt" }
    }
    assert.deepStrictEqual(await here.snapshot(), after)
    assert.deepStrictEqual(await conclude(here, ...args), [6, "1-0", "2-0", "3-0", "4-0", "9-0"])
    assert.deepStrictEqual(await here.snapshot(), after)
  })

  it("refuses an old token", async () => {
    const here = await seeded()
    await offer(here, 1, "t1")
    await client.zadd(here.keys.offers("ops"), 5, "1-0")
    await offer(here, 1, "t2")
    const before = await here.snapshot()
    for (const outcome of ["remove", "keep", "again", "release", "renew"]) {
      assert.deepStrictEqual(await conclude(here, "1-0", "t1", outcome, 0), [1, "1-0"])
    }
    assert.deepStrictEqual(await here.snapshot(), before)
  })
})

describe("letters that another program wrote", () => {
  const Text = Channel.make("texts", { payload: Schema.String })
  const prefix = freshPrefix()
  const { dead } = Keys.make(prefix, 0)
  const good = JSON.stringify({ i: "m", t: 5, n: 3, d: 3, c: 0, o: "5-0", ch: "texts", g: "g", f: { reason: "term" } })

  it.live("disturb nobody: they are listed, cannot be requeued, and can be removed", () =>
    Effect.gen(function*() {
      const add = (...fields: ReadonlyArray<string>) => Effect.promise(() => client.xadd(dead, "*", ...fields))
      yield* add("what", "ever")
      yield* add("b", "not JSON\nx")
      yield* add("b", "{\"i\":\"m\"}\nx")
      yield* add("b", `${good.replace("\"term\"", "\"unheard of\"")}\n"x"`)
      yield* add("k", "other\ntexts\nterm", "b", `${good}\n"x"`)
      yield* add("k", "g\ntexts\nterm", "b", `${good}\n"good"`)
      const { letters } = yield* DeadLetters.list({}, { order: "oldest" })
      assert.deepStrictEqual(letters.map(({ malformed }) => malformed === undefined), [
        false,
        false,
        false,
        false,
        false,
        true
      ])
      assert.strictEqual(letters[0]!.raw, JSON.stringify(["what", "ever"]))
      assert.deepInclude(letters[5]!, { group: "g", channel: "texts", id: "m", attempt: 3, raw: "\"good\"" })
      assert.lengthOf((yield* DeadLetters.list({ group: "g" })).letters, 1)
      assert.isFalse(yield* DeadLetters.requeue(letters[0]!.letterId))
      assert.isFalse(yield* DeadLetters.requeue(letters[4]!.letterId))

      const seen = yield* Queue.unbounded<DeadLetter.Offered>()
      yield* DeadLetters.subscribe({ handler: (letter) => Queue.offer(seen, letter) })
      assert.lengthOf(yield* Queue.takeN(seen, 6), 6)

      assert.deepStrictEqual(yield* DeadLetters.requeueAll({}, { limit: 100 }), { matched: 6, moved: 1 })
      const messages = yield* Queue.unbounded<string>()
      yield* Subscription.make(Text, { group: "g", handler: ({ payload }) => Queue.offer(messages, payload) })
      assert.strictEqual(yield* Queue.take(messages), "good")
      assert.isTrue(yield* DeadLetters.remove(letters[0]!.letterId))
      assert.strictEqual(yield* DeadLetters.purge({}), 4)
      assert.strictEqual(yield* DeadLetters.count(), 0)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ port, host: "127.0.0.1", prefix }))))

  it.live("a dead-letter key of another type is reported, and the rest goes on", () =>
    Effect.gen(function*() {
      const other = freshPrefix()
      yield* Effect.promise(() => client.set(Keys.make(other, 0).dead, "in the way"))
      yield* Effect.gen(function*() {
        const error = yield* Effect.flip(DeadLetters.list())
        assert.deepInclude(error, { _tag: "BrokerError", reason: "Refused" })
        const messages = yield* Queue.unbounded<string>()
        yield* Subscription.make(Text, { group: "g", handler: ({ payload }) => Queue.offer(messages, payload) })
        yield* Publisher.publish(Text, "x")
        assert.strictEqual(yield* Queue.take(messages), "x")
        const broker = yield* Broker.Broker
        assert.strictEqual((yield* Effect.flip(broker.letters.size(0))).reason, "Refused")
      }).pipe(Effect.scoped, Effect.provide(Rotif.layer({ port, host: "127.0.0.1", prefix: other })))
    }))
})
