/** The effect of each script of scheduling on the whole keyspace, and that of a second run. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Redis as Client } from "ioredis"
import { Redis } from "rotif"
import { inject } from "vitest"
import * as Keys from "../../src/redisBroker/keys.ts"
import { cancel } from "../../src/redisBroker/scripts/publish/cancel.ts"
import { removeGroup } from "../../src/redisBroker/scripts/member/removeGroup.ts"
import { removeRecurring } from "../../src/redisBroker/scripts/recurring/removeRecurring.ts"
import { promote } from "../../src/redisBroker/scripts/publish/promote.ts"
import { upsertRecurring } from "../../src/redisBroker/scripts/recurring/upsertRecurring.ts"
import { reschedule } from "../../src/redisBroker/scripts/publish/reschedule.ts"
import { schedule } from "../../src/redisBroker/scripts/publish/schedule.ts"
import { listScheduled } from "../../src/redisBroker/scripts/publish/listScheduled.ts"
import { publishTicks } from "../../src/redisBroker/scripts/recurring/publishTicks.ts"
import { dueTicks } from "../../src/redisBroker/scripts/recurring/dueTicks.ts"
import * as Keyspace from "../fixtures/Keyspace.ts"
import { freshPrefix } from "../contract/kit.ts"

type Args = ReadonlyArray<string | number>

const client = new Client({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

/** A stream by the fields of its entries, a string without its expiry, scores and values as text. */
const brief = (value: unknown): unknown =>
  Keyspace.isStream(value)
    ? value.entries.map(([, ...fields]) => fields)
    : Array.isArray(value)
    ? value[0]
    : Object.fromEntries(Object.entries(value as object).map(([name, one]) => [name, String(one)]))

/** An empty namespace, and ways to seed it, to run a script, and to see everything in it. */
const namespace = Effect.gen(function*() {
  const keys = Keys.make(freshPrefix(), 0)
  const redis = yield* Redis.Redis
  const connection = redis.connection(keys.meta)
  const send = (...command: readonly [string, ...Args]) => connection.send(command, { idempotent: true })
  const run = (script: Redis.Script, keys: ReadonlyArray<string>, args: Args) => connection.evaluate(script, keys, args)
  const { dump } = Keyspace.open(client, keys.meta.slice(0, -"meta".length))
  /** Everything, as these tests compare it. */
  const everything = Effect.map(
    Effect.promise(dump),
    (contents) =>
      Object.fromEntries(
        Object.entries(contents).filter(([name]) => !name.endsWith(" ends")).map((
          [name, value]
        ) => [name, brief(value)])
      )
  )
  const logged = (channel: string) =>
    Effect.andThen(
      send("xgroup", "CREATE", keys.log(channel), "g", "0", "MKSTREAM"),
      send("xgroup", "DESTROY", keys.log(channel), "g")
    )
  const now = Effect.map(send("time"), (time) => Number((time as ReadonlyArray<string>)[0]) * 1000)
  return { keys, send, run, everything, logged, now }
})

const connected = Redis.layer({ url: `redis://127.0.0.1:${inject("redisPort")}` })

const test = (name: string, body: Effect.Effect<unknown, unknown, Redis.Redis>) =>
  it.live(name, () => Effect.provide(body, connected))

const later = 9_000_000_000_000

describe("schedule", () => {
  test(
    "lets messages wait once, and remembers their windows",
    Effect.gen(function*() {
      const { everything, keys, logged, run, send } = yield* namespace
      const scheduleAll = run(
        schedule,
        [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.answer("t"), keys.seen("c", "ib")],
        [
          keys.events,
          "\nc\n",
          "t",
          9000,
          "a",
          later,
          "\nA",
          0,
          0,
          4,
          "b",
          later + 1,
          "w1000 t ib\nh{}\n\nB",
          0,
          1000,
          5
        ]
      )
      assert.deepStrictEqual(yield* scheduleAll, ["unknown"])
      assert.deepStrictEqual(yield* everything, {})
      yield* logged("c")
      assert.deepStrictEqual(yield* scheduleAll, [["scheduled", `${later}`], ["scheduled", `${later + 1}`]])
      const state = {
        "bodies::c": { a: "\nA", b: "w1000 t ib\nh{}\n\nB" },
        "log:c": [],
        "seen:c:ib": "@ t b",
        waiting: { "\nc\na": `${later}`, "\nc\nb": `${later + 1}` }
      }
      const answer = { "answer:t": JSON.stringify([["scheduled", `${later}`], ["scheduled", `${later + 1}`]]) }
      assert.deepStrictEqual(yield* everything, { ...state, ...answer })
      assert.isAbove(Number(yield* send("pttl", keys.seen("c", "ib"))), 1000)
      assert.isAbove(Number(yield* send("pttl", keys.answer("t"))), 8000)
      // The same call again, then another.
      assert.deepStrictEqual(yield* scheduleAll, [["scheduled", `${later}`], ["scheduled", `${later + 1}`]])
      assert.deepStrictEqual(yield* everything, { ...state, ...answer })
      yield* send("del", keys.answer("t"))
      assert.deepStrictEqual(yield* scheduleAll, [["duplicate", "@ - a"], ["duplicate", "@ - b"]])
      assert.deepInclude(yield* everything, state)
    })
  )

  test(
    "adds what is due already to the log, once within its window",
    Effect.gen(function*() {
      const { everything, keys, logged, run, send } = yield* namespace
      yield* logged("c")
      const once = run(
        schedule,
        [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.answer("t"), keys.seen("c", "ia")],
        [keys.events, "\nc\n", "t", 9000, "a", 1, "w1000 t ia\nh{}\nx500\n\nA", 0, 1000, 5]
      )
      const [[outcome, position]] = (yield* once) as [[string, string]]
      assert.strictEqual(outcome, "stored")
      const state = {
        "log:c": [["i", "a", "l", "0", "b", "w1000 t ia\nh{}\nx500\n\nA"]],
        "seen:c:ia": `${position} t a`
      }
      const answer = { "answer:t": JSON.stringify([["stored", position]]) }
      assert.deepStrictEqual(yield* everything, { ...state, ...answer })
      yield* send("del", keys.seen("c", "ia"))
      assert.deepStrictEqual(yield* once, [["stored", position]])
      yield* send("del", keys.answer("t"))
      yield* send("set", keys.seen("c", "ia"), `${position} t a`)
      assert.deepStrictEqual(yield* once, [["duplicate", `${position} t a`]])
      assert.deepInclude(yield* everything, state)
    })
  )

  test(
    "replaces what waits, where that is asked for",
    Effect.gen(function*() {
      const { everything, keys, logged, run } = yield* namespace
      yield* logged("c")
      const replace = (call: string, body: string, at: number) =>
        run(
          schedule,
          [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.answer(call)],
          [keys.events, "\nc\n", call, 9000, "a", at, body, 1, 0, 4]
        )
      yield* replace("t", "\nA", later)
      yield* replace("u", "\nB", later + 5)
      // The answer of the first was lost: what came after it stays.
      assert.deepStrictEqual(yield* replace("t", "\nA", later), [["scheduled", `${later}`]])
      assert.deepInclude(yield* everything, {
        "bodies::c": { a: "\nB" },
        "log:c": [],
        waiting: { "\nc\na": `${later + 5}` }
      })
    })
  )

  test(
    "does nothing when a key has a wrong type",
    Effect.gen(function*() {
      const { everything, keys, logged, run, send } = yield* namespace
      yield* logged("c")
      yield* send("set", keys.waiting, "x")
      const before = yield* everything
      const error = yield* Effect.flip(
        run(
          schedule,
          [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.answer("t")],
          [keys.events, "\nc\n", "t", 9000, "a", later, "\nA", 0, 0, 4]
        )
      )
      assert.strictEqual(error.reason, "Refused")
      assert.deepStrictEqual(yield* everything, before)
    })
  )
})

describe("promote and drop", () => {
  test(
    "leave nothing of a group that is removed while its retries are due, whichever comes first",
    Effect.gen(function*() {
      for (const first of ["promote", "drop"]) {
        const { everything, keys, run, send } = yield* namespace
        yield* send("xgroup", "CREATE", keys.log("c"), "g", "0", "MKSTREAM")
        yield* send("xgroup", "CREATE", keys.retry("g", "c"), "g", "0", "MKSTREAM")
        yield* send("sadd", keys.retries("g"), "c")
        yield* send("zadd", keys.waiting, 1, "g\nc\n1-1")
        yield* send("hset", keys.bodies("g", "c"), "1-1", "{}\nB")
        const remove = run(
          removeGroup,
          [
            keys.log("c"),
            keys.retry("g", "c"),
            keys.retries("g"),
            keys.floors("g"),
            keys.meta,
            keys.counts,
            keys.bodies("g", "c"),
            keys.trials("g", "c"),
            keys.settled
          ],
          ["g", "c", 1]
        )
        const move = run(
          promote,
          [keys.waiting, keys.bodies("g", "c"), keys.retry("g", "c"), keys.retries("g")],
          [10, 1000, "", "g\nc\n"]
        )
        if (first === "promote") yield* move
        assert.strictEqual(yield* remove, 1)
        // Nothing moved, nothing broken, nothing put off.
        if (first === "drop") assert.deepStrictEqual(yield* move, [0, 0, 0, [], -1])
        const { meta, ...rest } = yield* everything
        assert.isDefined(meta)
        assert.deepStrictEqual(rest, { "log:c": [], settled: { c: "0-0" } })
      }
    })
  )

  test(
    "let go of the leases of a large group in steps",
    Effect.gen(function*() {
      const { keys, run, send } = yield* namespace
      const log = keys.log("c")
      yield* send("xgroup", "CREATE", log, "g", "0", "MKSTREAM")
      for (let i = 0; i < 2_500; i++) yield* send("xadd", log, "*", "p", "x")
      yield* send("xreadgroup", "GROUP", "g", "me", "COUNT", 2_500, "STREAMS", log, ">")
      const names = [log, keys.retry("g", "c"), keys.retries("g"), keys.floors("g"), keys.meta, keys.counts]
      const step = (isFirst: number) =>
        run(removeGroup, [...names, keys.bodies("g", "c"), keys.trials("g", "c"), keys.settled], ["g", "c", isFirst])
      const before = Number(
        (yield* send("xpending", log, "g") as Effect.Effect<Array<string>, unknown>)[1]!.split("-")[1]
      )
      assert.deepStrictEqual([yield* step(1), yield* step(0), yield* step(0)], [0, 0, 1])
      // How far it had come before anything was let go.
      const settled = yield* send("hget", keys.settled, "c")
      assert.match(String(settled), new RegExp(`-(${before - 1}|18446744073709551615)$`))
      assert.deepStrictEqual(yield* send("xinfo", "GROUPS", log), [])
    })
  )
})

describe("promote", () => {
  test(
    "ends after about 1 MiB, and says that more is due",
    Effect.gen(function*() {
      const { keys, logged, run, send } = yield* namespace
      yield* logged("c")
      for (const id of ["a", "b", "c", "d"]) {
        yield* send("zadd", keys.waiting, 1, `\nc\n${id}`)
        yield* send("hset", keys.bodies("", "c"), id, `\n${"x".repeat(600_000)}`)
      }
      const step = run(
        promote,
        [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.log("c")],
        [10, 1000, "", "\nc\n"]
      )
      assert.deepStrictEqual(yield* step, [2, 0, 0, [], 0])
      assert.deepStrictEqual(yield* step, [2, 0, 0, [], -1])
    })
  )

  test(
    "moves what is due to where it waits for, in order, and nothing else",
    Effect.gen(function*() {
      const { everything, keys, logged, now, run, send } = yield* namespace
      yield* logged("c")
      yield* send("xgroup", "CREATE", keys.retry("g", "c"), "g", "0", "MKSTREAM")
      yield* send(
        "zadd",
        keys.waiting,
        3,
        "\nc\nthird",
        1,
        "\nc\nfirst",
        2,
        "g\nc\n1-1",
        later,
        "\nc\nlater",
        4,
        "\nc\nno body",
        5,
        "junk"
      )
      yield* send("hset", keys.bodies("", "c"), "first", "w1 t ifirst\n\nA", "third", "x1000\n\nC", "later", "\nD")
      yield* send("hset", keys.bodies("g", "c"), "1-1", "{}\nB")
      const step = (...targets: ReadonlyArray<string>) =>
        run(
          promote,
          [
            keys.waiting,
            ...targets.flatMap((prefix) =>
              prefix === "\nc\n"
                ? [keys.bodies("", "c"), keys.log("c"), keys.log("c")]
                : [keys.bodies("g", "c"), keys.retry("g", "c"), keys.retries("g")]
            )
          ],
          [10, 1000, "", ...targets]
        )
      // The caller does not know the targets yet; what is no message at all goes at once.
      assert.deepStrictEqual(yield* step(), [0, 1, 0, ["\nc\n", "g\nc\n"], 0])
      const [moved, broken, aside, unknown, wait] = (yield* step("\nc\n", "g\nc\n")) as [
        number,
        number,
        number,
        Args,
        number
      ]
      assert.deepStrictEqual([moved, broken, aside, unknown], [3, 1, 0, []])
      assert.isAbove(wait, 1_000_000_000)
      const late = Number(((yield* everything)["log:c"] as Array<Array<string>>)[1]![3])
      // It is late by nearly the whole age of the epoch.
      assert.approximately(late, (yield* now) - 4, 5_000)
      const state = {
        "bodies::c": { later: "\nD" },
        "log:c": [["i", "first", "l", String(late + 2), "b", "w1 t ifirst\n\nA"], [
          "i",
          "third",
          "l",
          String(late),
          "b",
          "x1000\n\nC"
        ]],
        "retry:g:c": [["b", "{}\nB"]],
        waiting: { "\nc\nlater": `${later}` }
      }
      assert.deepStrictEqual(yield* everything, state)
      assert.deepStrictEqual(((yield* step("\nc\n", "g\nc\n")) as Args).slice(0, 3), [0, 0, 0])
      assert.deepStrictEqual(yield* everything, state)
    })
  )

  test(
    "puts off what has a wrong key, and moves the rest",
    Effect.gen(function*() {
      const { everything, keys, logged, now, run, send } = yield* namespace
      yield* logged("c")
      yield* send("set", keys.log("bad"), "x")
      yield* send("zadd", keys.waiting, 1, "\nbad\na", 2, "\nc\nb")
      yield* send("hset", keys.bodies("", "bad"), "a", "\nA")
      yield* send("hset", keys.bodies("", "c"), "b", "\nB")
      const step = run(
        promote,
        [
          keys.waiting,
          ...["bad", "c"].flatMap((channel) => [keys.bodies("", channel), keys.log(channel), keys.log(channel)])
        ],
        [10, 60_000, "", "\nbad\n", "\nc\n"]
      )
      assert.deepStrictEqual(((yield* step) as Args).slice(0, 3), [1, 0, 1])
      const { waiting, ...rest } = yield* everything
      assert.deepStrictEqual(rest, { "bodies::bad": { a: "\nA" }, "log:bad": "x", "log:c": [["i", "b", "b", "\nB"]] })
      assert.approximately(Number((waiting as Record<string, string>)["\nbad\na"]), (yield* now) + 60_000, 5_000)
      const before = yield* everything
      assert.deepStrictEqual(((yield* step) as Args).slice(0, 3), [0, 0, 0])
      assert.deepStrictEqual(yield* everything, before)
    })
  )

  test(
    "moves retries alone where it is told so, and tells how many it has passed over",
    Effect.gen(function*() {
      const { everything, keys, logged, now, run, send } = yield* namespace
      yield* logged("c")
      const none: ReadonlyArray<string> = []
      const dueAt = (yield* now) + 60_000
      yield* send("zadd", keys.waiting, 1, "\nc\na", 2, "g\nc\n1-1", 3, "\nc\nb", 4, "g\nc\n1-2", dueAt, "\nc\nd")
      yield* send("hset", keys.bodies("", "c"), "a", "\nA", "b", "\nB", "d", "\nD")
      yield* send("hset", keys.bodies("g", "c"), "1-1", "{}\nX", "1-2", "{}\nY")
      const step = (limit: number, offset: number) =>
        Effect.map(
          run(
            promote,
            [keys.waiting, keys.bodies("g", "c"), keys.retry("g", "c"), keys.retries("g")],
            [limit, 1000, offset, "g\nc\n"]
          ),
          (reply) => reply as ReadonlyArray<unknown>
        )
      // The first page has one to pass over and one to move, the next begins behind the one that stays.
      assert.deepStrictEqual(yield* step(2, 0), [1, 0, 0, none, 0, 1])
      const last = yield* step(2, 1)
      assert.deepStrictEqual([...last.slice(0, 4), last[5]], [1, 0, 0, none, 1])
      assert.approximately(Number(last[4]), 60_000, 5_000)
      const state = yield* everything
      assert.deepStrictEqual(state["retry:g:c"], [["b", "{}\nX"], ["b", "{}\nY"]])
      assert.deepStrictEqual(state["bodies::c"], { a: "\nA", b: "\nB", d: "\nD" })
      assert.deepStrictEqual(state["waiting"], { "\nc\na": "1", "\nc\nb": "3", "\nc\nd": String(dueAt) })
      assert.isUndefined(state["bodies:g:c"])
      assert.deepStrictEqual((yield* step(10, 0)).slice(0, 4), [0, 0, 0, none])
      assert.deepStrictEqual(yield* everything, state)
    })
  )

  test(
    "moves no more than it may",
    Effect.gen(function*() {
      const { keys, logged, run, send } = yield* namespace
      yield* logged("c")
      for (let i = 0; i < 7; i++) {
        yield* send("zadd", keys.waiting, i, `\nc\n${i}`)
        yield* send("hset", keys.bodies("", "c"), i, "\nA")
      }
      const step = run(promote, [keys.waiting, keys.bodies("", "c"), keys.log("c")], [5, 1000, "", "\nc\n"])
      assert.deepStrictEqual(yield* step, [5, 0, 0, [], 0])
      assert.deepStrictEqual(yield* step, [2, 0, 0, [], -1])
    })
  )
})

describe("cancel", () => {
  test(
    "removes the message and the window it has opened, and tells a repetition the same",
    Effect.gen(function*() {
      const { everything, keys, run, send } = yield* namespace
      yield* send("zadd", keys.waiting, later, "\nc\na", later, "\nc\nb")
      yield* send("hset", keys.bodies("", "c"), "a", "w1000 t tK\n\nA", "b", "\nB")
      yield* send("set", keys.seen("c", "tK"), "@ t a")
      yield* send("set", keys.seen("c", "ia"), "1-1 - a")
      const by = (call: string, key: string) =>
        run(
          cancel,
          [keys.waiting, keys.bodies("", "c"), keys.seen("c", key), keys.answer(call)],
          ["\nc\na", "a", key, 9000]
        )
      const before = yield* everything
      assert.strictEqual(yield* by("u", "ia"), "tK")
      assert.deepStrictEqual(yield* everything, before)
      assert.strictEqual(yield* by("u", "tK"), 1)
      const state = {
        "bodies::c": { b: "\nB" },
        "seen:c:ia": "1-1 - a",
        "answer:u": "1",
        waiting: { "\nc\nb": `${later}` }
      }
      assert.deepStrictEqual(yield* everything, state)
      assert.strictEqual(yield* by("u", "tK"), 1)
      // Another call: it does not wait, and windows stay.
      yield* send("set", keys.seen("c", "tK"), "2-1 x c")
      assert.strictEqual(yield* by("v", "tK"), 0)
      assert.deepStrictEqual(yield* everything, { ...state, "seen:c:tK": "2-1 x c" })
    })
  )

  test(
    "leaves a window that another message has opened",
    Effect.gen(function*() {
      const { everything, keys, run, send } = yield* namespace
      yield* send("zadd", keys.waiting, later, "\nc\na")
      yield* send("hset", keys.bodies("", "c"), "a", "w1000 t ia\n\nA")
      yield* send("set", keys.seen("c", "ia"), "@ tt a")
      const reply = yield* run(
        cancel,
        [keys.waiting, keys.bodies("", "c"), keys.seen("c", "ia"), keys.answer("u")],
        ["\nc\na", "a", "ia", 9000]
      )
      assert.strictEqual(reply, 1)
      assert.deepStrictEqual(yield* everything, { "seen:c:ia": "@ tt a", "answer:u": "1" })
    })
  )
})

describe("reschedule", () => {
  test(
    "changes the time and the end of its window, or moves it into the log; and tells a repetition the same",
    Effect.gen(function*() {
      const { everything, keys, logged, now, run, send } = yield* namespace
      yield* logged("c")
      yield* send("zadd", keys.waiting, later, "\nc\na")
      yield* send("hset", keys.bodies("", "c"), "a", "w1000 t tK\nx900\n\nA")
      let calls = 0
      const to = (at: string | number, call = `u${calls++}`, key = "tK") =>
        run(
          reschedule,
          [keys.waiting, keys.bodies("", "c"), keys.log("c"), keys.seen("c", key), keys.answer(call)],
          [keys.events, "\nc\na", "a", at, key, 9000]
        )
      const ends = Effect.map(
        Effect.all([send("pttl", keys.seen("c", "tK")), now]),
        ([left, now]) => Number(left) + now
      )
      assert.strictEqual(yield* to(later - 7, "other", "ia"), "tK")
      assert.strictEqual(yield* to(later - 7), 1)
      assert.deepStrictEqual(yield* everything, {
        "bodies::c": { a: "w1000 t tK\nx900\n\nA" },
        "log:c": [],
        "answer:u0": "1",
        waiting: { "\nc\na": `${later - 7}` }
      })
      yield* send("set", keys.seen("c", "tK"), "@ t a", "PX", 100_000)
      assert.strictEqual(yield* to(later - 8), 1)
      assert.approximately(yield* ends, later - 8 + 1000, 1000)
      // Another message has opened it since.
      yield* send("set", keys.seen("c", "tK"), "@ x b", "PX", 100_000)
      assert.strictEqual(yield* to(later - 9), 1)
      assert.isBelow(yield* ends, later - 1_000_000)
      yield* send("set", keys.seen("c", "tK"), "@ t a", "PX", 100_000)
      assert.strictEqual(yield* to("+0", "last"), 1)
      assert.isAtMost(Number(yield* send("pttl", keys.seen("c", "tK"))), 1000)
      yield* send("del", keys.seen("c", "tK"))
      assert.deepInclude(yield* everything, {
        "log:c": [["i", "a", "l", "0", "b", "w1000 t tK\nx900\n\nA"]],
        "answer:last": "1"
      })
      const state = yield* everything
      assert.strictEqual(yield* to("+0", "last"), 1)
      assert.strictEqual(yield* to("+0"), 0)
      assert.strictEqual(yield* to(later), 0)
      assert.deepStrictEqual(yield* everything, state)
    })
  )
})

describe("scheduled", () => {
  test(
    "pages through members of one time in the order of their bytes, also past one that is gone",
    Effect.gen(function*() {
      const { everything, keys, run, send } = yield* namespace
      const ids = ["a", "aa", "b", "ä", "é", "z", "ÿ", "€", "😀"].toSorted((one, other) =>
        Buffer.compare(Buffer.from(one), Buffer.from(other))
      )
      for (const id of ids) yield* send("zadd", keys.waiting, later, `\nc\n${id}`)
      yield* send("zadd", keys.waiting, later, "g\nc\n1-1", 5, "g\nc\n2-2")
      const before = yield* everything
      const found: Array<string> = []
      let score = ""
      let member: string | undefined = ""
      while (member !== undefined) {
        const reply: readonly [ReadonlyArray<string>, string?, string?] =
          (yield* run(listScheduled, [keys.waiting], ["\nc\n", score, member, 2, 3])) as readonly [
            ReadonlyArray<string>,
            string?,
            string?
          ]
        found.push(...reply[0].filter((_, i) => i % 2 === 1).map((text) => text.slice(3)))
        score = reply[1] ?? ""
        member = reply[2]
      }
      assert.deepStrictEqual(found, ids)
      assert.deepStrictEqual(yield* everything, before)
      const [past] = (yield* run(listScheduled, [keys.waiting], ["\nc\n", later, "\nc\nc", 1, 10])) as [
        ReadonlyArray<string>
      ]
      assert.deepStrictEqual(past, [`${later}`, "\nc\nz"])
    })
  )
})

describe("recur, ticks, tick, forget", () => {
  test(
    "keep one next tick for each definition, and publish each once",
    Effect.gen(function*() {
      const { everything, keys, logged, run, send } = yield* namespace
      const define = (head: string, body: string, at: number) =>
        run(upsertRecurring, [keys.recurring, keys.ticks], [keys.events, "k", head, body, at])
      assert.strictEqual(yield* define("{}\nc", "\nA", 10), "10")
      assert.strictEqual(yield* define("{}\nc", "h{}\n\nB", 20), "10")
      assert.deepStrictEqual(yield* everything, { recurring: { k: "{}\nc\nh{}\n\nB" }, ticks: { k: "10" } })

      yield* send("zadd", keys.ticks, 5, "orphan", later, "other")
      const [, wait, ...due] = (yield* run(dueTicks, [keys.ticks, keys.recurring], [10])) as Args
      assert.deepStrictEqual([wait, ...due], [0, "orphan", "", "", "k", "10", "{}\nc"])
      // It was removed.
      yield* send("zrem", keys.ticks, "other")

      const publish = (recurrence: string, from: number) =>
        run(
          publishTicks,
          [keys.ticks, keys.recurring, keys.log("c"), keys.seen("c", "ik@1"), keys.seen("c", "ik@2")],
          ["k", recurrence, from, later, "k@1", 1000, "k@2", 1000]
        )
      assert.strictEqual(yield* publish("{}", 10), -1)
      yield* logged("c")
      yield* send("set", keys.seen("c", "ik@1"), "1-1 - k@1")
      assert.strictEqual(yield* publish("{\"other\":1}", 10), 0)
      assert.strictEqual(yield* publish("{}", 11), 0)
      assert.strictEqual(yield* publish("{}", 10), 1)
      const { "seen:c:ik@2": window, ...state } = yield* everything
      assert.match(String(window), /^\d+-\d+ - k@2$/)
      assert.deepStrictEqual(state, {
        "log:c": [["i", "k@2", "l", "0", "b", "h{}\n\nB"]],
        recurring: { k: "{}\nc\nh{}\n\nB" },
        "seen:c:ik@1": "1-1 - k@1",
        ticks: { k: `${later}` }
      })
      const before = yield* everything
      assert.strictEqual(yield* publish("{}", 10), 0)
      assert.deepStrictEqual(yield* everything, before)

      assert.strictEqual(yield* define("{}\nother", "\nA", 30), "30")
      assert.strictEqual(yield* run(removeRecurring, [keys.ticks, keys.recurring], ["k"]), 1)
      assert.strictEqual(yield* run(removeRecurring, [keys.ticks, keys.recurring], ["k"]), 0)
      assert.hasAllKeys(yield* everything, ["log:c", "seen:c:ik@1", "seen:c:ik@2"])
    })
  )
})
