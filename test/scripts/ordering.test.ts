/**
 * The scripts of ordering keys: how consumers enter what they have read, free keys, and take over; each step with the whole keyspace after it.
 * Messages are `n-0`, and named by n.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { inject } from "vitest"
import type { Script } from "../../src/Redis.ts"
import { brokenGate } from "../../src/redisBroker/scripts/checks/brokenGate.ts"
import { ackOnce } from "../../src/redisBroker/scripts/member/ackOnce.ts"
import { attachGroup } from "../../src/redisBroker/scripts/member/attachGroup.ts"
import { commit } from "../../src/redisBroker/scripts/member/commit.ts"
import { enter } from "../../src/redisBroker/scripts/member/enter.ts"
import { leave } from "../../src/redisBroker/scripts/member/leave.ts"
import { settle } from "../../src/redisBroker/scripts/member/settle.ts"
import { takeOver } from "../../src/redisBroker/scripts/member/takeOver.ts"
import { freshPrefix } from "../contract/kit.ts"

const client = new Redis({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

type Stream = "log" | "retry"

interface Entering {
  readonly stream?: Stream
  /** Not an interval of the stream. */
  readonly isClaimed?: boolean
  readonly isUrgent?: boolean
  readonly hasNoKey?: boolean
}

const gateKeys = ["busy", "lines", "behind", "reached"]

const place = async () => {
  const prefix = `{${freshPrefix()}}:`
  const key = (name: string) => prefix + name
  const evaluate = (script: Script, keys: ReadonlyArray<string>, ...args: ReadonlyArray<string | number>) =>
    client.eval(script.lua, keys.length, ...keys.map(key), ...args.map(String))
  const keyOf = new Map<number, string>()
  const stamps = new Map<string, string>()
  for (const stream of ["log", "retry"]) await client.xgroup("CREATE", key(stream), "g", "0", "MKSTREAM")

  /** Publishes a message of each of these keys ("": none), and returns their numbers. */
  const publish = async (...keys: ReadonlyArray<string>) => {
    const numbers: Array<number> = []
    for (const one of keys) {
      const number = keyOf.size + 1
      keyOf.set(number, one)
      await client.xadd(key("log"), `${number}-0`, "i", `m${number}`, ...one === "" ? [] : ["k", one], "p", "x")
      numbers.push(number)
    }
    return numbers
  }
  /** Adds a message to the retry stream: a head, or one that was requeued. */
  const addRetry = async (one: string, isHead: boolean) => {
    const number = keyOf.size + 1
    keyOf.set(number, one)
    const body = `${JSON.stringify({ i: "m", k: one, ...isHead ? { kh: 1 } : {} })}\nx`
    await client.xadd(key("retry"), `${number}-0`, "b", body)
    return number
  }
  const read = async (consumer: string, count: number, stream: Stream = "log") => {
    const reply = (await client.xreadgroup(
      "GROUP",
      "g",
      consumer,
      "COUNT",
      count,
      "STREAMS",
      key(stream),
      ">"
    )) as unknown as Array<[string, Array<[string]>]> | null
    return (reply?.[0]?.[1] ?? []).map(([position]) => Number(position.split("-")[0]))
  }
  return {
    key,
    publish,
    addRetry,
    read,
    /** Enters messages; returns the outcome, those that wait and those that are gone. */
    enter: async (consumer: string, numbers: ReadonlyArray<number>, options: Entering = {}) => {
      const { hasNoKey = false, isClaimed = false, isUrgent = false, stream = "log" } = options
      const keyed = hasNoKey ? [] : numbers.filter((number) => keyOf.get(number) !== "")
      const [stamp, outcome, waiting = [], gone = []] = (await evaluate(
        enter,
        [stream, ...gateKeys, "taken"],
        "g",
        consumer,
        stream === "log" ? "l" : "r",
        stamps.get(consumer) ?? "",
        isClaimed ? "" : `${numbers[0]}-0`,
        `${numbers.at(-1)}-0`,
        isUrgent ? 1 : 0,
        keyed.length,
        ...keyed.map((number) => `${number}-0`),
        ...keyed.map((number) => keyOf.get(number)!)
      )) as [string, number, Array<number>?, Array<number>?]
      if (outcome === 0) stamps.set(consumer, stamp)
      return { outcome, waiting: waiting.map((i) => keyed[i - 1]!), gone: gone.map((i) => keyed[i - 1]!) }
    },
    /** Acknowledges messages; returns the refused ones, those handed over, and how many were gone. */
    leave: async (consumer: string, numbers: ReadonlyArray<number>, stamp?: string, stream: Stream = "log") => {
      const [, refused, next, vanished] = (await evaluate(
        leave,
        [stream, "counts", "taken", "log", "retry", "busy", "lines", "behind"],
        "g",
        consumer,
        "ch",
        stream === "log" ? 0 : 1,
        stamp ?? stamps.get(consumer) ?? "",
        0,
        numbers.length,
        ...numbers.map((number) => `${number}-0`),
        ...numbers.map((number) => keyOf.get(number)!)
      )) as [string, Array<number>, Array<[string, string, Array<string>]>, number]
      return {
        refused: refused.map((i) => numbers[i - 1]!),
        next: next.map(([kind, position]) => kind + position.split("-")[0]!),
        vanished
      }
    },
    settle: (consumer: string, number: number, action: string, stream: Stream = "log", handedOut = 1) =>
      evaluate(
        settle,
        [
          stream,
          "retry",
          "waiting",
          "bodies",
          "dead",
          "retries",
          "meta",
          "counts",
          "trials",
          "log",
          "retry",
          "busy",
          "lines",
          "behind"
        ],
        "g",
        consumer,
        "ch",
        key("events"),
        1,
        `${number}-0`,
        handedOut,
        action,
        action === "wait" ? `60000\ng\nch\n${number}-0` : action === "dead" ? "g\nch\nterm" : "",
        `{"i":"m","k":"${keyOf.get(number)}"${action === "dead" ? "" : ",\"kh\":1"}}\nx`,
        "",
        "",
        keyOf.get(number)!
      ) as Promise<[Array<string>, Array<[string, string]>, number]>,
    takeOver: async (consumer: string, ...numbers: ReadonlyArray<number>) =>
      ((await evaluate(
        takeOver,
        ["log", "taken"],
        "g",
        consumer,
        0,
        ...numbers.map((n) => `${n}-0`)
      )) as Array<[string]>).map(([position]) => Number(position.split("-")[0])),
    ackOnce: (consumer: string, number: number, token: string) =>
      evaluate(
        ackOnce,
        ["log", "once", "older", "counts", "taken", "log", "retry", "busy", "lines", "behind"],
        "g",
        "ch",
        0,
        60_000,
        consumer,
        1,
        `${number}-0`,
        "ch\nm",
        token,
        0,
        keyOf.get(number)!
      ),
    /** Commits a transaction without messages and writes. */
    commit: (consumer: string, number: number, token: string) =>
      evaluate(
        commit,
        ["log", "once", "older", "counts", "busy", "taken", "log", "retry", "lines", "behind"],
        "ack",
        "g",
        `${number}-0`,
        "ch\nm",
        token,
        "ch",
        0,
        0,
        60_000,
        key("events"),
        "free",
        5,
        7,
        consumer,
        keyOf.get(number)!,
        6,
        7,
        8,
        9,
        10
      ),
    attach: (kind: Stream) =>
      evaluate(
        attachGroup,
        ["floors", "counts", "settled", "removed", "taken", kind, "retry", "bodies", ...gateKeys],
        "g",
        "0",
        "[]",
        kind === "log" ? "ch" : "\nch"
      ),
    check: (step: "check" | "repair") =>
      evaluate(
        brokenGate,
        ["log", "retry", "bodies", ...gateKeys],
        step,
        "g",
        "c"
      ) as Promise<[number, Array<[string, string]>?, number?]>,
    stampOf: (consumer: string) => client.hget(key("taken"), consumer),
    /** The gate, and who has what pending, by numbers. */
    state: async () => {
      const short = (text: string) => text.replaceAll("-0", "")
      const hash = async (name: string) =>
        Object.fromEntries(
          Object.entries(await client.hgetall(key(name))).map(([field, value]) => [short(field), short(value)])
        )
      const pending: Record<string, Array<string>> = {}
      for (const [stream, kind] of [["log", "l"], ["retry", "r"]] as const) {
        const leases = (await client.xpending(key(stream), "g", "-", "+", 100)) as Array<[string, string]>
        for (const [position, owner] of leases) (pending[owner] ??= []).push(kind + short(position))
      }
      return {
        busy: (await client.smembers(key("busy"))).toSorted(),
        lines: await hash("lines"),
        behind: await hash("behind"),
        reached: await hash("reached"),
        pending
      }
    }
  }
}

/** A place where a consumer is known by its stamp, after a first message of a key of its own. */
const begun = async (...consumers: ReadonlyArray<string>) => {
  const here = await place()
  for (const consumer of consumers) {
    const numbers = await here.publish(`first of ${consumer}`)
    await here.read(consumer, 1)
    await here.enter(consumer, numbers)
    await here.leave(consumer, numbers)
  }
  return here
}

const done = { outcome: 0, waiting: [], gone: [] }

describe("enter", () => {
  it("lets the first of each key run, and puts the others behind it in their order", async () => {
    const here = await begun("c")
    const numbers = await here.publish("a", "b", "a", "", "a")
    await here.read("c", 9)
    assert.deepStrictEqual(await here.enter("c", numbers), { outcome: 0, waiting: [4, 6], gone: [] })
    const state = {
      busy: ["a", "b"],
      lines: { a: "l4 l6" },
      behind: { l4: "l6" },
      reached: { l: "6" },
      pending: { c: ["l2", "l3", "l5"], "~gate": ["l4", "l6"] }
    }
    assert.deepStrictEqual(await here.state(), state)
    // Its answer was lost: those that wait belong to another one by now.
    assert.deepStrictEqual(await here.enter("c", numbers), { outcome: 0, waiting: [], gone: [4, 6] })
    assert.deepStrictEqual(await here.state(), state)
  })

  it("is asked again when another consumer has read messages in between, and enters them for it in the end", async () => {
    const here = await begun("c", "d")
    const [first] = await here.publish("a")
    await here.read("c", 1)
    const [second] = await here.publish("a")
    await here.read("d", 1)
    const before = await here.state()
    assert.strictEqual((await here.enter("d", [second!])).outcome, 1)
    assert.deepStrictEqual(await here.state(), before)
    assert.deepStrictEqual(await here.enter("d", [second!], { isUrgent: true }), {
      outcome: 0,
      waiting: [second!],
      gone: []
    })
    // The first is the head, and still pending for the consumer that has read it.
    assert.deepStrictEqual(await here.enter("c", [first!]), done)
    assert.deepStrictEqual(await here.state(), {
      busy: ["a"],
      lines: { a: `l${second} l${second}` },
      behind: {},
      reached: { l: `${second}` },
      pending: { c: [`l${first}`], "~gate": [`l${second}`] }
    })
  })

  it("does not wait where the other one has entered it", async () => {
    const here = await begun("c", "d")
    const first = await here.publish("a")
    await here.read("c", 1)
    const second = await here.publish("a")
    await here.read("d", 1)
    assert.deepStrictEqual(await here.enter("c", first), done)
    assert.deepStrictEqual(await here.enter("d", second), { outcome: 0, waiting: second, gone: [] })
  })

  it("looks at each when something was taken over from the consumer since before the read", async () => {
    const here = await begun("c", "d")
    const numbers = await here.publish("a", "b")
    await here.read("c", 2)
    assert.deepStrictEqual(await here.takeOver("d", numbers[0]!), [numbers[0]])
    assert.deepStrictEqual(await here.enter("c", numbers), { outcome: 0, waiting: [], gone: [numbers[0]!] })
    assert.deepStrictEqual(await here.enter("d", [numbers[0]!], { isClaimed: true }), done)
    assert.deepStrictEqual((await here.state()).pending, { c: [`l${numbers[1]}`], d: [`l${numbers[0]}`] })
  })

  it("gives what was read and handed over meanwhile to the consumer that has it", async () => {
    const here = await begun("c", "d")
    const [first] = await here.publish("a")
    await here.read("c", 1)
    await here.enter("c", [first!])
    const second = await here.publish("a")
    await here.read("d", 1)
    const third = await here.publish("b")
    await here.read("c", 1)
    // For d, which has said nothing yet.
    await here.enter("c", third, { isUrgent: true })
    assert.deepStrictEqual((await here.leave("c", [first!])).next, [`l${second[0]}`])
    assert.deepStrictEqual(await here.enter("d", second), { outcome: 0, waiting: [], gone: second })
  })

  it("puts a claimed one that waits to the others that wait", async () => {
    const here = await begun("c", "d")
    const [first] = await here.publish("a")
    await here.read("c", 1)
    await here.enter("c", [first!])
    const [second] = await here.publish("a")
    await here.read("lost", 1)
    assert.deepStrictEqual(await here.takeOver("d", second!), [second])
    assert.deepStrictEqual(await here.enter("d", [second!], { isClaimed: true }), {
      outcome: 0,
      waiting: [second!],
      gone: []
    })
    assert.deepStrictEqual((await here.state()).pending, { c: [`l${first}`], "~gate": [`l${second}`] })
  })

  it("puts a requeued message behind what waits, and passes over heads in the retry stream", async () => {
    const here = await begun("c")
    const [first, second] = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", [first!, second!])
    const head = await here.addRetry("b", true)
    const requeued = await here.addRetry("a", false)
    assert.deepStrictEqual(await here.read("c", 9, "retry"), [head, requeued])
    // The head is delivered without being entered.
    assert.deepStrictEqual(await here.enter("c", [requeued], { stream: "retry" }), {
      outcome: 0,
      waiting: [requeued],
      gone: []
    })
    const { lines, pending } = await here.state()
    assert.deepStrictEqual(lines, { a: `l${second} r${requeued}` })
    assert.deepStrictEqual(pending, { c: [`l${first}`, `r${head}`], "~gate": [`l${second}`, `r${requeued}`] })
    assert.deepStrictEqual((await here.leave("c", [first!])).next, [`l${second}`])
    assert.deepStrictEqual((await here.leave("c", [second!])).next, [`r${requeued}`])
    assert.deepStrictEqual((await here.leave("c", [requeued], undefined, "retry")).next, [])
    assert.deepStrictEqual((await here.state()).busy, [])
  })

  it("finds the key of a message that came from the schedule", async () => {
    const here = await begun("c", "d")
    await client.xadd(here.key("log"), "100-0", "i", "x", "l", "0", "b", "h{\"a\":\"b\"}\nk\"a\\nb\"\n\nx")
    await here.read("c", 1)
    await client.xadd(here.key("log"), "101-0", "i", "y", "b", "\nx")
    await here.read("d", 1)
    assert.strictEqual((await here.enter("d", [101], { isUrgent: true, hasNoKey: true })).outcome, 0)
    assert.deepStrictEqual((await here.state()).busy, ["a\nb"])
  })

  it("builds the gate anew when it was deleted, with everything that is pending", async () => {
    const here = await begun("c", "d")
    const numbers = await here.publish("a", "a", "b", "a")
    await here.read("c", 4)
    await here.enter("c", numbers)
    const state = await here.state()
    await client.del(here.key("reached"), here.key("lines"))
    const [last] = await here.publish("c")
    await here.read("d", 1)
    assert.deepStrictEqual(await here.enter("d", [last!]), done)
    assert.deepStrictEqual(await here.state(), {
      ...state,
      busy: ["a", "b", "c"],
      reached: { l: `${last}` },
      pending: { ...state.pending, d: [`l${last}`] }
    })
  })

  it("enters at most 1,000 messages of others in one call", async () => {
    const here = await begun("c", "d")
    const numbers = await here.publish(...Array.from({ length: 1_500 }, (_, i) => `k${i}`))
    await here.read("c", 1_500)
    const last = await here.publish("k0")
    await here.read("d", 1)
    assert.strictEqual((await here.enter("d", last, { isUrgent: true })).outcome, 2)
    assert.strictEqual((await here.state()).reached["l"], String(numbers[999]))
    assert.deepStrictEqual(await here.enter("d", last, { isUrgent: true, isClaimed: true }), {
      outcome: 0,
      waiting: last,
      gone: []
    })
  })
})

describe("leave", () => {
  it("acknowledges, counts, and hands over the next of each key, in their order", async () => {
    const here = await begun("c")
    const [a1, b1, a2, none, a3, b2] = await here.publish("a", "b", "a", "", "a", "b")
    await here.read("c", 9)
    await here.enter("c", [a1!, b1!, a2!, none!, a3!, b2!])
    assert.deepStrictEqual(await here.leave("c", [a1!, none!, b1!]), {
      refused: [],
      next: [`l${a2}`, `l${b2}`],
      vanished: 0
    })
    assert.deepStrictEqual(await here.state(), {
      busy: ["a", "b"],
      lines: { a: `l${a3} l${a3}` },
      behind: {},
      reached: { l: `${b2}` },
      pending: { c: [`l${a2}`, `l${b2}`], "~gate": [`l${a3}`] }
    })
    assert.deepStrictEqual(await here.leave("c", [a2!, b2!]), { refused: [], next: [`l${a3}`], vanished: 0 })
    assert.deepStrictEqual(await here.leave("c", [a3!]), { refused: [], next: [], vanished: 0 })
    const { reached: _, ...empty } = await here.state()
    assert.deepStrictEqual(empty, { busy: [], lines: {}, behind: {}, pending: {} })
    assert.strictEqual(await client.hget(here.key("counts"), "a\ng\nch"), "7")
  })

  it("hands over to the consumer that acknowledges, as a first hand-out", async () => {
    const here = await begun("c", "d")
    const [first, second] = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", [first!, second!])
    await here.takeOver("d", first!)
    assert.deepStrictEqual((await here.leave("d", [first!])).next, [`l${second}`])
    const [lease] = (await client.xpending(here.key("log"), "g", "-", "+", 9)) as Array<Array<unknown>>
    assert.deepStrictEqual([lease![1], lease![3]], ["d", 1])
  })

  it("refuses what was taken over, and frees nothing for it", async () => {
    const here = await begun("c", "d")
    const [first, second, other] = await here.publish("a", "a", "b")
    await here.read("c", 3)
    await here.enter("c", [first!, second!, other!])
    await here.takeOver("d", first!)
    assert.deepStrictEqual(await here.leave("c", [first!, other!]), { refused: [first!], next: [], vanished: 0 })
    assert.deepStrictEqual((await here.state()).busy, ["a"])
    assert.deepStrictEqual((await here.state()).pending, { d: [`l${first}`], "~gate": [`l${second}`] })
  })

  it("looks at each without a stamp: a second one finds nothing to free", async () => {
    const here = await begun("c")
    const [first, second, third] = await here.publish("a", "a", "a")
    await here.read("c", 3)
    await here.enter("c", [first!, second!, third!])
    assert.deepStrictEqual((await here.leave("c", [first!])).next, [`l${second}`])
    assert.deepStrictEqual(await here.leave("c", [first!], ""), { refused: [first!], next: [], vanished: 0 })
    assert.deepStrictEqual((await here.state()).lines, { a: `l${third} l${third}` })
  })

  it("passes over what a limit has removed", async () => {
    const here = await begun("c")
    const [first, second, third] = await here.publish("a", "a", "a")
    await here.read("c", 3)
    await here.enter("c", [first!, second!, third!])
    await client.xdel(here.key("log"), `${second}-0`)
    assert.deepStrictEqual(await here.leave("c", [first!]), { refused: [], next: [`l${third}`], vanished: 1 })
    await client.xdel(here.key("log"), `${third}-0`)
    assert.deepStrictEqual((await here.leave("c", [third!])).next, [])
    assert.deepStrictEqual((await here.state()).busy, [])
  })
})

describe("settle and ackOnce of ordering keys", () => {
  it("keep the key closed for a retry, and free it with a dead letter", async () => {
    const here = await begun("c")
    const [first, second] = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", [first!, second!])
    assert.deepStrictEqual(await here.settle("c", first!, "wait"), [[], [], 0])
    assert.deepStrictEqual((await here.state()).busy, ["a"])
    assert.deepStrictEqual((await here.check("check"))[1], [])
    const retried = await here.addRetry("a", true)
    await here.read("c", 1, "retry")
    const [refused, next] = await here.settle("c", retried, "dead", "retry")
    assert.deepStrictEqual([refused, next.map(([kind, position]) => kind + position)], [[], [`l${second}-0`]])
    // A second run frees nothing more.
    assert.deepStrictEqual(await here.settle("c", retried, "dead", "retry"), [[`${retried}-0`], [], 0])
    assert.deepStrictEqual((await here.state()).pending, { c: [`l${second}`] })
  })

  it("take the lease from a consumer that has not begun it, which then looks at what it holds", async () => {
    const here = await begun("c", "d")
    const [first, second] = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", [first!, second!])
    await client.hset(here.key("once"), "ch\nm", "9000000000000 t")
    await here.takeOver("d", first!)
    await here.enter("d", [first!], { isClaimed: true })
    const stamp = await here.stampOf("d")
    const [replies, next] = (await here.ackOnce("c", first!, "t")) as [Array<number>, Array<[string, string]>]
    assert.deepStrictEqual([replies, next.map(([, position]) => position)], [[1], [`${second}-0`]])
    assert.notStrictEqual(await here.stampOf("d"), stamp)
    assert.deepStrictEqual((await here.leave("d", [first!])).refused, [first])
    assert.deepStrictEqual((await here.state()).busy, ["a"])
  })
})

describe("ackOnce and commit of ordering keys", () => {
  // The mark of a key may outlast the lease: then the consumer that took the delivery over finds it busy, and gives it back.
  for (const verb of ["ackOnce", "commit"] as const) {
    it(`${verb} frees nothing for a delivery that has gone on meanwhile`, async () => {
      const here = await begun("c", "d")
      const [first, second] = await here.publish("a", "a")
      await here.read("c", 2)
      await here.enter("c", [first!, second!])
      await client.hset(here.key("once"), "ch\nm", "9000000000000 t")
      await here.takeOver("d", first!)
      await here.enter("d", [first!], { isClaimed: true })
      assert.deepStrictEqual(await here.settle("d", first!, "wait", "log", 2), [[], [], 0])
      const [, next] = (await here[verb]("c", first!, "t")) as [unknown, Array<unknown>]
      assert.deepStrictEqual(next, [])
      const { busy, lines, pending } = await here.state()
      assert.deepStrictEqual({ busy, lines, pending }, {
        busy: ["a"],
        lines: { a: `l${second} l${second}` },
        pending: { "~gate": [`l${second}`] }
      })
    })
  }
})

describe("takeOver", () => {
  it("changes the stamp of the consumer that loses, and of no other", async () => {
    const here = await begun("c", "d")
    const numbers = await here.publish("a", "b")
    await here.read("c", 2)
    const before = [await here.stampOf("c"), await here.stampOf("d")]
    assert.deepStrictEqual(await here.takeOver("d", ...numbers), numbers)
    const after = [await here.stampOf("c"), await here.stampOf("d")]
    assert.notStrictEqual(after[0], before[0])
    assert.strictEqual(after[1], before[1])
  })

  it("takes nothing that waits", async () => {
    const here = await begun("c")
    const [first, second] = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", [first!, second!])
    assert.deepStrictEqual(await here.takeOver("d", second!), [])
    assert.deepStrictEqual((await here.state()).pending, { c: [`l${first}`], "~gate": [`l${second}`] })
  })
})

describe("attachGroup", () => {
  it("begins the gate anew where the group was gone, and no stamp counts any more", async () => {
    const here = await begun("c")
    const numbers = await here.publish("a", "a")
    await here.read("c", 2)
    await here.enter("c", numbers)
    await client.xgroup("DESTROY", here.key("log"), "g")
    await here.attach("log")
    assert.deepStrictEqual(await here.state(), { busy: [], lines: {}, behind: {}, reached: {}, pending: {} })
    assert.isNull(await here.stampOf("c"))
    // It has the message no more.
    assert.deepStrictEqual((await here.leave("c", [numbers[0]!])).refused, [numbers[0]])
  })
})

describe("brokenGate", () => {
  const busyPlace = async () => {
    const here = await begun("c", "d")
    const numbers = await here.publish("a", "a", "b", "a")
    await here.read("c", 4)
    await here.enter("c", numbers)
    return { here, numbers }
  }

  it("finds nothing in a gate at work", async () => {
    const { here, numbers } = await busyPlace()
    await here.addRetry("r", true)
    await client.sadd(here.key("busy"), "r", "w")
    await client.hset(here.key("bodies"), "9-0", "{\"i\":\"m\",\"k\":\"w\",\"kh\":1}\nx")
    const more = await here.publish("a", "b")
    await here.read("d", 2)
    assert.deepStrictEqual(await here.check("check"), [1, [], 0])
    await here.enter("d", more)
    await here.leave("c", [numbers[0]!])
    const before = await here.state()
    assert.deepStrictEqual(await here.check("repair"), [1, [], 0])
    assert.deepStrictEqual(await here.state(), before)
  })

  it("finds a key without a head, and makes the first that waits its head, to be taken over", async () => {
    const { here, numbers: [first, second, , last] } = await busyPlace()
    await client.xdel(here.key("log"), `${first}-0`)
    assert.deepStrictEqual(await here.check("check"), [0], "as long as it is handed out, its key is not known")
    await client.xack(here.key("log"), "g", `${first}-0`)
    assert.deepStrictEqual(await here.check("check"), [1, [["closed", "a"]], 0])
    assert.deepStrictEqual(await here.check("repair"), [1, [["closed", "a"]], 0])
    const state = await here.state()
    assert.deepStrictEqual(state.busy, ["a", "b"])
    assert.deepStrictEqual(state.lines, { a: `l${last} l${last}` })
    assert.deepStrictEqual(state.pending["c"]?.includes(`l${second}`), true)
    assert.deepStrictEqual(await here.takeOver("d", second!), [second])
    assert.deepStrictEqual(await here.check("repair"), [1, [], 0])
  })

  it.each([
    ["busy", ["open", "open"]],
    ["lines", ["unlinked", "unlinked"]],
    ["behind", ["unlinked"]]
  ])("builds %s again", async (name, problems) => {
    const { here } = await busyPlace()
    const before = await here.state()
    await client.del(here.key(name))
    assert.deepStrictEqual((await here.check("repair"))[1]!.map(([problem]) => problem), problems)
    assert.deepStrictEqual(await here.state(), before)
    assert.deepStrictEqual(await here.check("repair"), [1, [], 0])
  })

  it("ends what waits and is gone from its stream", async () => {
    const { here, numbers: [first, second, , last] } = await busyPlace()
    await client.xdel(here.key("log"), `${first}-0`, `${second}-0`)
    await client.xack(here.key("log"), "g", `${first}-0`)
    assert.deepStrictEqual(await here.check("repair"), [1, [["closed", "a"]], 1])
    assert.deepStrictEqual(await here.takeOver("d", last!), [last])
    assert.isUndefined((await here.state()).pending["~gate"])
  })

  it("removes from a line what does not wait", async () => {
    const { here, numbers: [, second, , last] } = await busyPlace()
    await client.xack(here.key("log"), "g", `${second}-0`)
    assert.deepStrictEqual((await here.check("repair"))[1], [["link", `l${second}-0`]])
    assert.deepStrictEqual((await here.state()).lines, { a: `l${last} l${last}` })
  })
})
