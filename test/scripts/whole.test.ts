/**
 * No script leaves half of its work: with memory full, with something of another type under any of its keys, and with a stream at its last
 * position it changes nothing, or does all of it. A script has no rollback, so each has to look before its first write; here every one of them
 * is tried, also those that come later.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Redis } from "ioredis"
import type { Script } from "../../src/Redis.ts"
import * as Keyspace from "../fixtures/Keyspace.ts"
import { namesOf, scriptNamed } from "../fixtures/scripts.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"

type Arg = string | number
/** `$name` stands for the key of that name. */
type Command = ReadonlyArray<Arg>

interface Case {
  readonly seed?: ReadonlyArray<Command>
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<Arg>
  /** Streams to which it adds, and how many entries. */
  readonly adds?: Readonly<Record<string, number>>
  /** What only moves, or frees memory, is done when memory is full as well. */
  readonly whenFull?: "done" | "refused"
}

const day = 86_400_000
const stamp = "1700000000000000"
const far = 9_000_000_000_000
const past = 1_000_000_000_000

/** Messages `1-0`, `2-0`, … in the log, handed out to c of group g. */
const held = (count: number, stream = "log"): ReadonlyArray<Command> => [
  ["xgroup", "create", `$${stream}`, "g", "0", "mkstream"],
  ...Array.from({ length: count }, (_, i): Command => ["xadd", `$${stream}`, `${i + 1}-0`, "i", `m${i + 1}`, "p", "x"]),
  ["xreadgroup", "group", "g", "c", "streams", `$${stream}`, ">"]
]
/** The same, all with the ordering key `k`: the first may run, the last waits behind it. */
const entered = (count: number): ReadonlyArray<Command> => [
  ...held(count),
  ["sadd", "$busy", "k"],
  ["hset", "$lines", "k", `l${count}-0 l${count}-0`],
  ["hset", "$reached", "l", `${count}-0`],
  ["hset", "$taken", "c", stamp],
  ["xclaim", "$log", "g", "~gate", 0, `${count}-0`, "justid"]
]
const gate = ["busy", "lines", "behind", "reached"]
const log = ["xadd", "$log", "1-0", "i", "a", "p", "x"]
const letter = (n: number): Command => ["xadd", "$dead", `${n}-0`, "k", "g\nch\nterm", "b", "{}\nx"]
const once: Command = ["hset", "$once", "", `${past} ${far}`, "ch\nm", `${far} t`]
const settleKeys = ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials", "once", "older"]

const judges: Readonly<Record<string, Case>> = {
  bodyWithoutTime: {
    seed: [["hset", "$bodies", "1-0", "{}\nx"], ["hset", "$groups", "g\nch", ""]],
    keys: ["waiting", "bodies", "retry", "retries", "meta", "groups", "counts"],
    args: ["repair", "g", "ch", "1-0", "events"]
  },
  brokenChannel: {
    seed: [["hset", "$channels", "ch", "no"], log],
    keys: ["meta", "channels", "log"],
    args: ["repair", "ch", "limits", "no"]
  },
  letterCount: {
    seed: [letter(1)],
    keys: ["dead", "counts"],
    args: ["repair", 1, 1, "d\ng\nch\nterm", 1]
  },
  noExpiry: { seed: [["set", "$seen", "x"]], keys: ["seen"], args: ["repair", 1_000] },
  brokenFloor: {
    seed: [...held(1), ["hset", "$floors", "ch", "5-0"]],
    keys: ["log", "floors"],
    args: ["repair", "beyond", "g", "ch"]
  },
  ghostDelivery: {
    seed: [...held(1), ["xdel", "$log", "1-0"]],
    keys: ["log", "counts", "taken"],
    args: ["repair", "g", "ch", "1-0", 0, 1]
  },
  letterInTwoStates: {
    seed: [letter(1), ...held(1)],
    keys: ["dead", "waiting", "log", "retry"],
    args: ["1-0", "g", "g\nch\n1-0", "1-0", ""]
  },
  lostOffer: {
    seed: [letter(1), ["hset", "$offered", "1-0", "1\nt"]],
    keys: ["dead", "offers", "offered"],
    args: ["repair", "1-0", "events"]
  },
  readyInTwoStates: {
    seed: [...held(1, "retry"), ["zadd", "$waiting", far, "g\nch\n1-0"], ["hset", "$bodies", "1-0", "{}\nx"]],
    keys: ["retry", "waiting", "bodies", "log", "counts"],
    args: ["repair", "waiting", "g", "ch", "1-0", "g\nch\n1-0", "1-0"]
  },
  brokenPause: { seed: [["hset", "$paused", "a", "b"]], keys: ["paused"], args: ["repair", "a", "b"] },
  orphanRecord: {
    seed: [["hset", "$record", "x", "y"]],
    keys: ["groups", "floors", "retries", "record"],
    args: ["repair", "g"]
  },
  unlistedRetries: {
    seed: held(1, "retry"),
    keys: ["retry", "retries", "meta"],
    args: ["repair", "g", "ch", "events"]
  },
  settledCount: { seed: held(1, "retry"), keys: ["retry", "counts"], args: ["repair", "g", "ch"] },
  brokenRecurrence: {
    seed: [["hset", "$recurring", "k", "r\nch\n\nx"]],
    keys: ["ticks", "recurring"],
    args: ["repair", "definition", "k", far, "events"]
  },
  timeWithoutBody: {
    seed: [["zadd", "$waiting", far, "\nch\na"]],
    keys: ["waiting", "bodies"],
    args: ["repair", "\nch\na", "a"]
  },
  orphanTrials: {
    seed: [...held(1), ["hset", "$trials", "l9-0", "1 1"]],
    keys: ["trials", "log", "retry"],
    args: ["repair", "g"]
  },
  brokenGate: {
    seed: [...entered(2), ["sadd", "$busy", "other"]],
    keys: ["log", "retry", "bodies", "busy", "lines", "behind", "reached"],
    args: ["repair", "g", "c"]
  },
  waitingInTwoStates: {
    seed: [...held(1), ["zadd", "$waiting", far, "g\nch\n1-0"], ["hset", "$bodies", "1-0", "{}\nx"]],
    keys: ["waiting", "bodies", "log"],
    args: ["repair", "g", "g\nch\n1-0", "1-0"]
  }
}

const cases: Readonly<Record<string, Case>> = {
  ...judges,
  ack: {
    seed: held(2),
    keys: ["counts", "log"],
    args: ["g", "ch", 0, 0, 2, "1-0", "2-0"],
    whenFull: "done"
  },
  endTrial: { seed: [["hset", "$trials", "l1-0", "2 1"]], keys: ["trials"], args: ["l1-0", 1], whenFull: "done" },
  shareSettings: {
    seed: [["zadd", "$settings", 1, "other"]],
    keys: ["settings"],
    args: ["mine", 60_000],
    whenFull: "done"
  },
  append: {
    seed: [log],
    keys: ["log", "seen", "answer"],
    args: ["b", "call", 60_000, 60_000, "", "", 0, 0, 0, -1, 0, "", "i", "b", "p", "y"],
    adds: { log: 1 },
    whenFull: "refused"
  },
  attachGroup: {
    seed: [log],
    keys: [
      "floors",
      "counts",
      "settled",
      "removed",
      "taken",
      "log",
      "retry",
      "bodies",
      ...gate,
      "other",
      "r",
      "b",
      ...gate
    ],
    args: ["g", "$", "[]", "ch", "other"]
  },
  heartbeat: { keys: ["members"], args: ["c", 1_000], whenFull: "done" },
  beginOnce: { seed: [once], keys: ["once", "older"], args: [30_000, day, "t", "ch\nnew"], whenFull: "done" },
  cancel: {
    seed: [["zadd", "$waiting", far, "\nch\na"], ["hset", "$bodies", "a", "w9 call ia\n\nx"], [
      "set",
      "$seen",
      "@ call a"
    ]],
    keys: ["waiting", "bodies", "seen", "answer"],
    args: ["\nch\na", "a", "ia", 60_000],
    whenFull: "done"
  },
  createChannel: { keys: ["meta", "channels", "log", "definitions"], args: ["ch", "1 - -", "events", 1000] },
  commit: {
    seed: [...held(1), once, ["xadd", "$to", "1-0", "p", "x"], ["set", "$number", 1]],
    keys: ["log", "once", "older", "counts", "to", "seen", "outbox", "number", "hash", "waiting", "bodies"],
    args: [
      ["ack", "g", "1-0", "ch\nm", "t", "ch", 0, 0, day, "events"],
      ["publish", 5, 7, 60_000, 6, "x", "i", "x", "p", "2"],
      ["publish", 5, 7, 0, 0, "y", "i", "y", "p", "2"],
      ["outbox", 7, 4, "m", "{}", "p", "4"],
      ["incrby", 8, 1, 1],
      ["hset", 9, 2, "a", "b"],
      ["schedule", 5, 9, 0, 0, "s", 10, 11, "\nch\ns", far, 0, "\nx"]
    ].flat(),
    adds: { to: 2, outbox: 1 },
    whenFull: "done"
  },
  concludeLetters: {
    seed: [
      letter(1),
      letter(2),
      ["zadd", "$offers", 1, "1-0", 1, "2-0"],
      ["hset", "$offered", "1-0", "1\nt", "2-0", "1\nt"],
      ["hset", "$counts", "d\ng\nch\nterm", 2]
    ],
    keys: ["dead", "counts", "offers", "offered"],
    args: ["events", "1-0", "t", "again", 1_000, "2-0", "t", "remove", 0],
    whenFull: "done"
  },
  removeGroup: {
    seed: [
      ...held(1),
      ...held(1, "retry"),
      ["sadd", "$retries", "ch"],
      ["hset", "$floors", "ch", "1-0"],
      ["hset", "$counts", "a\ng\nch", 1],
      ["hset", "$bodies", "1-0", "x"]
    ],
    keys: ["log", "retry", "retries", "floors", "meta", "counts", "bodies", "trials", "settled", ...gate],
    args: ["g", "ch", 1],
    whenFull: "done"
  },
  ackOnce: {
    seed: [...entered(2), once],
    keys: ["log", "once", "older", "counts", "trials", "taken", "log", "retry", "busy", "lines", "behind"],
    args: ["g", "ch", 0, day, "c", 1, "1-0", "ch\nm", "t", 0, "k"],
    whenFull: "done"
  },
  removeRecurring: {
    seed: [["zadd", "$ticks", far, "k"], ["hset", "$recurring", "k", "r\nch\n\nx"]],
    keys: ["ticks", "recurring"],
    args: ["k"],
    whenFull: "done"
  },
  leaveGroup: {
    seed: [["xgroup", "create", "$log", "g", "0", "mkstream"], ["xgroup", "createconsumer", "$log", "g", "c"]],
    keys: ["log"],
    args: ["g", "c"],
    whenFull: "done"
  },
  trimToLimits: {
    seed: [["hset", "$channels", "ch", "{\"maxLength\":1}"], log],
    keys: ["channels", "log"],
    args: ["ch", 10],
    whenFull: "done"
  },
  offerLetters: {
    seed: [letter(1), letter(2), ["zadd", "$offers", 1, "1-0"], ["hset", "$offered", "1-0", "1\n", "cursor", "1-0"]],
    keys: ["dead", "offers", "offered"],
    args: [10, 60_000, "t", "earliest"],
    whenFull: "done"
  },
  deduplicate: { keys: ["key"], args: ["begin", "t", 60_000], whenFull: "refused" },
  missingPermissions: { keys: ["meta"], args: ["xadd"] },
  promote: {
    seed: [
      ["zadd", "$waiting", 1, "\nch\na", 2, "g\nch\n1-0"],
      ["hset", "$scheduled", "a", "\nx"],
      ["hset", "$bodies", "1-0", "{}\nx"],
      ["sadd", "$retries", "ch"],
      log
    ],
    keys: ["waiting", "scheduled", "log", "log", "bodies", "retry", "retries"],
    args: [10, 60_000, "", "\nch\n", "g\nch\n"],
    adds: { log: 1, retry: 1 },
    whenFull: "done"
  },
  findLostReplies: { seed: held(1), keys: ["log", "trials"], args: ["g", "c", "l", "1-0"], whenFull: "done" },
  upsertRecurring: { keys: ["recurring", "ticks"], args: ["events", "k", "r\nch", "\nx", far], whenFull: "refused" },
  registerGroup: {
    seed: [["hset", "$meta", "v", 1]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["[]", "g", "block", "g\na", "g\nb"],
    whenFull: "refused"
  },
  removeLetters: {
    seed: [letter(1), letter(2), ["hset", "$counts", "d\ng\nch\nterm", 2]],
    keys: ["dead", "counts"],
    args: ["1-0", "2-0"],
    whenFull: "done"
  },
  renew: { seed: held(1), keys: ["log"], args: ["g", "c", "1-0", 1], whenFull: "done" },
  requeueLetters: {
    seed: [letter(1), letter(2), ["hset", "$counts", "d\ng\nch\nterm", 2]],
    keys: ["dead", "counts", "meta", "retry", "retries"],
    args: ["events", 1, "g", "ch", "1-0", 1, "term", "{}\nx", "2-0", 1, "term", "{}\nx"],
    adds: { retry: 2 },
    whenFull: "done"
  },
  reschedule: {
    seed: [["zadd", "$waiting", far, "\nch\na"], ["hset", "$bodies", "a", "\nx"], log],
    keys: ["waiting", "bodies", "log", "seen", "answer"],
    args: ["events", "\nch\na", "a", "+0", "", 60_000],
    adds: { log: 1 },
    whenFull: "done"
  },
  schedule: {
    seed: [log],
    keys: ["waiting", "bodies", "log", "answer", "seen"],
    args: [
      ["events", "\nch\n", "call", 60_000],
      ["a", 1, "\nx", 0, 0, 4],
      ["b", 1, "\nx", 0, 60_000, 5],
      ["c", far, "\nx", 0, 0, 4]
    ].flat(),
    adds: { log: 2 },
    whenFull: "refused"
  },
  listScheduled: { seed: [["zadd", "$waiting", 1, "\nch\na"]], keys: ["waiting"], args: ["\n", "", "", 10, 10] },
  search: { seed: [log], keys: ["log"], args: ["0-0", "0-0", "a"] },
  settle: {
    seed: [...entered(6), once],
    keys: [...settleKeys, "log", "retry", "busy", "lines", "behind"],
    args: [
      ["g", "c", "ch", "events", 1],
      ["1-0", 1, "ack", "", "", "ch\nm", "t", "k"],
      ["2-0", 1, "ready+", "", "{}\nx", "", "", ""],
      ["3-0", 1, "wait", "60000\ng\nch\n3-0", "{}\nx", "", "", ""],
      ["4-0", 1, "dead", "g\nch\nterm", "{}\nx", "", "", ""],
      ["5-0", 1, "dead", "g\nch\nterm", "{}\nx", "", "", ""]
    ].flat(),
    adds: { retry: 1, dead: 2 },
    whenFull: "done"
  },
  pauseGroup: {
    seed: [["hset", "$paused", "h\na", "1 - {}"]],
    keys: ["paused"],
    args: ["g", "-", "{}", 0, 10, "events", "a"],
    whenFull: "done"
  },
  resumeGroup: {
    seed: [["hset", "$paused", "g\na", "1 - {}"], ["zadd", "$storm", 1, "x"]],
    keys: ["paused", "storm"],
    args: ["g", "events"],
    whenFull: "done"
  },
  keepPauses: { seed: [["hset", "$resting", "c", "x"]], keys: ["resting"], args: ["c", "y"], whenFull: "done" },
  countLetters: { seed: [["zadd", "$storm", 1, "x"]], keys: ["storm"], args: [60_000, 5, "a"], whenFull: "done" },
  listSources: { keys: ["meta", "channels", "groups", "retries", "removed", "paused"], args: ["", 0, 0, "g\nch"] },
  statistics: {
    seed: held(1),
    keys: ["log", "counts", "scheduled", "retry", "bodies"],
    args: ["ch", "g"]
  },
  scanBodies: { seed: [["hset", "$bodies", "a", "\nx"]], keys: ["bodies", "waiting"], args: ["0", 10, "\nch\n"] },
  scanDeliveries: { seed: held(1), keys: ["log"], args: ["g", "-", 10, 0] },
  sweepOnce: {
    seed: [["hset", "$once", "", `${past} ${past}`, "ch\nm", ""]],
    keys: ["once", "older"],
    args: [1],
    whenFull: "done"
  },
  publishTicks: {
    seed: [["zadd", "$ticks", 5, "k"], ["hset", "$recurring", "k", "r\nch\n\nx"], log],
    keys: ["ticks", "recurring", "log", "seen", "seen2"],
    args: ["k", "r", 5, far, "a", 60_000, "b", 60_000],
    adds: { log: 2 },
    whenFull: "refused"
  },
  dueTicks: { seed: [["zadd", "$ticks", 5, "k"]], keys: ["ticks", "recurring"], args: [10], whenFull: "done" },
  beginTrial: { seed: held(1), keys: ["log", "trials"], args: ["g", "c", "l", "1-0", 1], whenFull: "done" },
  confirmable: { keys: ["meta", "log"], args: [] },
  trim: {
    seed: [...held(2), ["xack", "$log", "g", "1-0", "2-0"], ["xgroup", "createconsumer", "$log", "g", "older"]],
    keys: ["meta", "log", "floors"],
    args: ["0", 0, 0, "", -1, -1, "ch", "g"],
    whenFull: "done"
  },
  enter: {
    seed: [...entered(2), ["xadd", "$log", "3-0", "i", "m3", "k", "k", "p", "x"], [
      "xadd",
      "$log",
      "4-0",
      "i",
      "m4",
      "k",
      "new",
      "p",
      "x"
    ], [
      "xreadgroup",
      "group",
      "g",
      "c",
      "streams",
      "$log",
      ">"
    ]],
    keys: ["log", "busy", "lines", "behind", "reached", "taken"],
    args: ["g", "c", "l", stamp, "3-0", "4-0", 0, 2, "3-0", "4-0", "k", "new"],
    whenFull: "done"
  },
  leave: {
    seed: entered(3),
    keys: ["log", "counts", "taken", "log", "retry", "busy", "lines", "behind"],
    args: ["g", "c", "ch", 0, stamp, 0, 2, "1-0", "2-0", "k", ""],
    whenFull: "done"
  },
  takeOver: {
    seed: [...held(1), ["hset", "$taken", "c", stamp]],
    keys: ["log", "taken"],
    args: ["g", "other", 0, "1-0"],
    whenFull: "done"
  },
  unregisterGroup: {
    seed: [["hset", "$meta", "v", 1], ["hset", "$groups", "g\na", ""]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["g", 60_000, "events", "a"],
    whenFull: "done"
  }
}

const names = namesOf()

const last = 2n ** 64n - 1n

describe("scripts do all or nothing", () => {
  const scope = Effect.runSync(Scope.make())
  let client: Redis
  beforeAll(async () => {
    const server = await Effect.runPromise(Scope.provide(RedisServer.make({ "maxmemory-policy": "noeviction" }), scope))
    client = new Redis({ host: server.host, port: server.port, protocol: 2 })
  })
  afterAll(async () => {
    client.disconnect()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  let number = 0
  const place = async (script: Script, { args, keys, seed = [] }: Case) => {
    const prefix = `{${number++}}:`
    const keyed = (arg: Arg) =>
      typeof arg === "string" && arg.startsWith("$") && arg !== "$" ? prefix + arg.slice(1) : arg
    for (const [name, ...rest] of seed) await client.call(String(name), rest.map(keyed))
    return {
      prefix,
      run: () =>
        client.eval(script.lua, keys.length, ...keys.map((key) => prefix + key), ...args.map(String)).then(
          // `commit` says in its reply that it refuses.
          (reply) => {
            if (script.name !== "commit") return undefined
            const text = (reply as ReadonlyArray<string>).join(" ")
            return text === "done" ? undefined : text
          },
          (error: Error) => error.message
        ),
      /** To the byte. */
      dump: async () => {
        const found = (await client.keys(`${prefix}*`)).toSorted()
        return Promise.all(found.map(async (key) => [key, (await client.dumpBuffer(key))?.toString("base64")]))
      },
      /** Without what depends on the time. */
      contents: async () =>
        JSON.stringify([
          await Keyspace.open(client, prefix).dump(),
          await client.xpending(`${prefix}log`, "g").catch(() => [])
        ]).replace(/\d{13,16}(-\d+)?/g, "time")
    }
  }
  type Place = Awaited<ReturnType<typeof place>>

  /** Runs it; when it is refused, nothing is changed. */
  const attempt = async (here: Place, what: string) => {
    const before = await here.dump()
    const error = await here.run()
    if (error !== undefined) assert.deepStrictEqual(await here.dump(), before, `${what}: ${error}`)
    return error
  }

  it("every script is tried", () => {
    assert.deepStrictEqual(Object.keys(cases).toSorted(), names)
  })

  for (const [name, one] of Object.entries(cases)) {
    describe(name, () => {
      it("does its work where nothing is in its way", async () => {
        const here = await place(scriptNamed(name), one)
        assert.isUndefined(await here.run())
        for (const key of Object.keys(one.adds ?? {})) assert.isAbove(await client.xlen(here.prefix + key), 0)
        if (name === "promote") assert.strictEqual(await client.zcard(`${here.prefix}waiting`), 0)
      })

      it("with memory full", async () => {
        const script = scriptNamed(name)
        const normal = await place(script, one)
        await normal.run()
        const full = await place(script, one)
        const before = await full.dump()
        await client.config("SET", "maxmemory", 1)
        const error = await full.run()
        await client.config("SET", "maxmemory", 0)
        const after = await full.dump()
        if (error !== undefined) assert.deepStrictEqual(after, before, error)
        // `statistics` only remembers what it can find again.
        else if (name !== "statistics") assert.strictEqual(await full.contents(), await normal.contents())
        if (one.whenFull === "done") assert.isUndefined(error)
        if (one.whenFull === "refused") assert.match(error ?? "", /^OOM/)
      })

      it.each([...new Set(one.keys)])("with something else under %s", async (key) => {
        const here = await place(scriptNamed(name), one)
        await client.del(here.prefix + key)
        await client.rpush(here.prefix + key, "x")
        await attempt(here, key)
      })

      it.each(Object.entries(one.adds ?? {}))("with too few positions left in %s", async (key, count) => {
        const script = scriptNamed(name)
        for (let left = 0; left < count; left++) {
          const here = await place(script, one)
          await client.xadd(here.prefix + key, `${last}-${last - BigInt(left)}`, "a", "b")
          const error = await attempt(here, `${left} positions`)
          // Others are not held up by a target: its messages stay, and are put off.
          if (name === "promote") {
            assert.isUndefined(error)
            assert.strictEqual(await client.zcard(`${here.prefix}waiting`), 1)
          } else assert.match(error ?? "", /has no position left|exhausted|^full/)
          const length = await client.xlen(here.prefix + key)
          assert.isAtMost(
            length,
            (one.seed ?? []).filter(([verb, at]) => verb === "xadd" && at === `$${key}`).length + 1
          )
        }
        const here = await place(script, one)
        await client.xadd(here.prefix + key, `${last}-${last - BigInt(count)}`, "a", "b")
        assert.isUndefined(await here.run(), "as many positions as are needed")
      })
    })
  }
})
