/**
 * What the scripts of exactly-once do to the data: seeded keys, one run, the whole keyspace compared, and a second run. Times of the
 * server become `now`, what is later `later`; positions it gave become `new`.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { inject } from "vitest"
import { beginOnce } from "../../src/redisBroker/scripts/member/beginOnce.ts"
import { commit } from "../../src/redisBroker/scripts/member/commit.ts"
import { ackOnce } from "../../src/redisBroker/scripts/member/ackOnce.ts"
import { deduplicate } from "../../src/redisBroker/scripts/upkeep/deduplicate.ts"
import { settle } from "../../src/redisBroker/scripts/member/settle.ts"
import { sweepOnce } from "../../src/redisBroker/scripts/upkeep/sweepOnce.ts"
import type { Script } from "../../src/Redis.ts"
import { freshPrefix } from "../contract/kit.ts"

type Arg = string | number
type Command = readonly [name: string, key: string, ...args: ReadonlyArray<Arg>]

interface Case {
  readonly does: string
  readonly script: Script
  readonly seed?: ReadonlyArray<Command>
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<Arg>
  readonly reply: unknown
  readonly after: Readonly<Record<string, unknown>>
  /** The second run, where it is not like the first. */
  readonly again?: { readonly reply: unknown; readonly after?: Readonly<Record<string, unknown>> }
}

const client = new Redis({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

const started = Date.now()
const far = String(started + 1_000_000)
const past = String(started - 1_000_000)

const plain = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(plain)
    : typeof value !== "string"
    ? value
    : value.replace(/\b(\d{13})(-\d+)?\b/g, (text, millis: string, position: string | undefined) => {
      const time = Number(millis)
      if (text === far || text === past) return text === far ? "far" : "past"
      return position !== undefined ? "new" : time < started ? text : time > Date.now() ? "later" : "now"
    })

const dump = async (prefix: string) => {
  const out: Record<string, unknown> = {}
  for (const key of (await client.keys(`${prefix}:*`)).toSorted()) {
    const name = key.slice(prefix.length + 1)
    const type = await client.type(key)
    if (type === "string") {
      out[name] = [plain(await client.get(key)), await client.pttl(key) > 0 ? "expires" : "stays"]
    } else if (type === "hash") {
      out[name] = Object.fromEntries(
        Object.entries(await client.hgetall(key)).map(([field, value]) => [field, plain(value)])
      )
    } else if (type === "zset") {
      const flat = await client.zrange(key, "0", "-1", "WITHSCORES")
      out[name] = Object.fromEntries(flat.flatMap((member, i) => i % 2 === 0 ? [[member, flat[i + 1]]] : []))
    } else {
      const groups = (await client.xinfo("GROUPS", key)) as ReadonlyArray<ReadonlyArray<unknown>>
      out[name] = {
        entries: (await client.xrange(key, "-", "+")).map(([, fields]) => fields.join(" ")),
        pending: groups.reduce((sum, group) => sum + Number(group[group.indexOf("pending") + 1]), 0)
      }
    }
  }
  return out
}

const day = 86_400_000
/** A message of the log that a consumer holds. */
const held: ReadonlyArray<Command> = [
  ["xadd", "log", "1-1", "i", "m", "p", "1"],
  ["hold", "log"]
]
const log = (pending: number, ...more: ReadonlyArray<string>) => ({ entries: ["i m p 1", ...more], pending })
/** What the marks of one hash say about all of them: since when, and until when. */
const head = `${past} ${far}`
const marked = (value: string): Command => ["hset", "marks", "", head, "c\nm", value]
const since = "past far"

const commitKeys = ["log", "marks", "old", "counts"]
const relayKeys = ["relayed", "arrived", "arrived", "arrived"]
const fence = ["ack", "g", "1-1", "c\nm", "t1", "c", 1, 1, day, "events"]
const mine = [...held, marked(`${far} t1`)]
const untouched = { log: log(1), marks: { "": since, "c\nm": "far t1" } }
const doneMarks = { "": "past later", "c\nm": "later" }

const cases: ReadonlyArray<Case> = [
  {
    does: "begin: marks what is free, and says what is done and who is at it",
    script: beginOnce,
    seed: [[
      "hset",
      "marks",
      "",
      head,
      "c\ndone",
      far,
      "c\nforgotten",
      past,
      "c\nbusy",
      `${far} t2`,
      "c\nover",
      `${past} t2`,
      "c\nown",
      `${far} t1`,
      "c\nothers",
      "x"
    ]],
    keys: ["marks", "old"],
    args: [30_000, 2_000_000, "t1", "c\nnew", "c\ndone", "c\nforgotten", "c\nbusy", "c\nover", "c\nown", "c\nothers"],
    reply: [1, 0, 1, -1, 1, 1, 1],
    after: {
      marks: {
        "": since,
        "c\nnew": "later t1",
        "c\ndone": "far",
        "c\nforgotten": "later t1",
        "c\nbusy": "far t2",
        "c\nover": "later t1",
        "c\nown": "later t1",
        "c\nothers": "later t1"
      }
    }
  },
  {
    does: "begin: looks at the marks of the time before",
    script: beginOnce,
    seed: [["hset", "old", "c\ndone", far, "c\nforgotten", past, "c\nbusy", `${far} t2`, "c\nown", `${far} t1`]],
    keys: ["marks", "old"],
    args: [30_000, day, "t1", "c\ndone", "c\nforgotten", "c\nbusy", "c\nown"],
    reply: [0, 1, -1, 1],
    after: {
      marks: { "": "now later", "c\nforgotten": "later t1", "c\nown": "later t1" },
      old: { "c\ndone": "far", "c\nforgotten": "past", "c\nbusy": "far t2", "c\nown": "far t1" }
    }
  },
  {
    does: "begin: marks become the old ones after their time, when those count no more",
    script: beginOnce,
    seed: [["hset", "marks", "", head, "c\ndone", far], ["hset", "old", "", `${past} ${past}`, "c\nolder", past]],
    keys: ["marks", "old"],
    args: [30_000, 1000, "t1", "c\ndone", "c\nolder"],
    reply: [0, 1],
    after: {
      marks: { "": "now later", "c\nolder": "later t1" },
      old: { "": since, "c\ndone": "far" }
    }
  },
  {
    does: "begin: old marks that count stay, whatever the one that begins would keep",
    script: beginOnce,
    seed: [["hset", "marks", "", head, "c\ndone", far], ["hset", "old", "", head, "c\nolder", far]],
    keys: ["marks", "old"],
    args: [30_000, 1000, "t1", "c\nnew", "c\nolder"],
    reply: [1, 0],
    after: {
      marks: { "": since, "c\ndone": "far", "c\nnew": "later t1" },
      old: { "": since, "c\nolder": "far" }
    }
  },
  {
    does: "finish: acknowledges and remembers what has this token",
    script: ackOnce,
    seed: mine,
    keys: ["log", "marks", "old", "counts"],
    args: ["g", "c", 0, 2_000_000, "1-1", "c\nm", "t1", 2],
    reply: [1],
    after: { counts: { "a\ng\nc": "1", "c\ng\nc": "2" }, log: log(0), marks: doneMarks },
    again: { reply: [2] }
  },
  ...([["log", 0, "l1-1", "r1-1"], ["retry stream", 1, "r1-1", "l1-1"]] as const).map((
    [what, isRetry, forgotten, left]
  ): Case => ({
    does: `finish: forgets the trials of what it acknowledges of a ${what}, and of nothing else`,
    script: ackOnce,
    seed: [...mine, ["hset", "trials", forgotten, "1 2", "l2-1", "1 2", left, "1 2"]],
    keys: ["log", "marks", "old", "counts", "trials"],
    args: ["g", "c", isRetry, 2_000_000, "1-1", "c\nm", "t1", 0, "2-1", "c\ngone", "t1", 0],
    reply: [1, 0],
    after: {
      counts: isRetry === 1 ? { "a\ng\nc": "1", "z\ng\nc": "1" } : { "a\ng\nc": "1" },
      log: log(0),
      marks: doneMarks,
      trials: { "l2-1": "1 2", [left]: "1 2" }
    },
    again: { reply: [2, 0] }
  })),
  {
    does: "finish: finds its mark in the time before",
    script: ackOnce,
    seed: [...held, ["hset", "old", "c\nm", `${past} t1`]],
    keys: ["log", "marks", "old", "counts"],
    args: ["g", "c", 0, 2_000_000, "1-1", "c\nm", "t1", 2],
    reply: [1],
    after: {
      counts: { "a\ng\nc": "1", "c\ng\nc": "2" },
      log: log(0),
      marks: { "": "now later", "c\nm": "later" },
      old: { "c\nm": "past t1" }
    },
    again: { reply: [2] }
  },
  {
    does: "finish: refuses a mark that is another's or gone, and touches nothing",
    script: ackOnce,
    seed: [...held, marked(`${past} t2`)],
    keys: ["log", "marks", "old", "counts"],
    args: ["g", "c", 0, day, "1-1", "c\nm", "t1", 0, "1-1", "c\ngone", "t1", 0],
    reply: [0, 0],
    after: { log: log(1), marks: { "": since, "c\nm": "past t2" } }
  },
  {
    does: "settle: frees the mark of what goes back",
    script: settle,
    seed: mine,
    keys: ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials", "marks", "old"],
    args: ["g", "me", "c", "events", "1-1", 1, "dead", "g\nc\nterm", "{}", "1", "c\nm", "t1"],
    reply: [],
    after: {
      log: log(0),
      counts: { "b\ng\nc": "1", "d\ng\nc\nterm": "1", "f\ng\nc": "1" },
      dead: { entries: ["k g\nc\nterm m {} p 1"], pending: 0 },
      marks: { "": since }
    },
    again: { reply: ["1-1"] }
  },
  {
    does: "settle: leaves the mark of another alone",
    script: settle,
    seed: [...held, marked(`${far} t2`)],
    keys: ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials", "marks", "old"],
    args: ["g", "me", "c", "events", "1-1", 1, "dead", "g\nc\nterm", "{}", "1", "c\nm", "t1"],
    reply: [],
    after: {
      log: log(0),
      counts: { "b\ng\nc": "1", "d\ng\nc\nterm": "1", "f\ng\nc": "1" },
      dead: { entries: ["k g\nc\nterm m {} p 1"], pending: 0 },
      marks: { "": since, "c\nm": "far t2" }
    },
    again: { reply: ["1-1"] }
  },
  {
    does: "commit: everything, with the acknowledgement and the mark",
    script: commit,
    seed: [...mine, ["set", "counter", "41"], ["set", "gone", "x"], ["hset", "hash", "a", "1"], [
      "xadd",
      "to",
      "1-1",
      "p",
      "0"
    ]],
    keys: [...commitKeys, "to", "seen", "counter", "hash", "text", "gone", "outbox"],
    args: [
      ...fence,
      "publish",
      5,
      7,
      60_000,
      6,
      "t x",
      "i",
      "x",
      "p",
      "2",
      "publish",
      5,
      7,
      60_000,
      6,
      "t x",
      "i",
      "x",
      "p",
      "3",
      "incrby",
      7,
      1,
      1,
      "hset",
      8,
      2,
      "b",
      "2",
      "set",
      9,
      1,
      "7",
      "incrby",
      9,
      1,
      -8,
      "del",
      10,
      0,
      "outbox",
      11,
      4,
      "m",
      "{}",
      "p",
      "4"
    ],
    reply: ["done"],
    after: {
      counts: { "a\ng\nc": "1", "c\ng\nc": "1", "z\ng\nc": "1" },
      log: log(0),
      marks: doneMarks,
      to: { entries: ["p 0", "i x p 2"], pending: 0 },
      seen: ["new t x", "expires"],
      counter: ["42", "stays"],
      hash: { a: "1", b: "2" },
      text: ["-1", "stays"],
      outbox: { entries: ["m {} p 4"], pending: 0 }
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: adds what is due at once to the log, in its place, and lets the rest wait",
    script: commit,
    seed: [...mine, ["xadd", "to", "1-1", "p", "0"]],
    keys: [...commitKeys, "to", "waiting", "bodies", "seen"],
    args: [
      ...fence,
      "schedule",
      5,
      10,
      60_000,
      8,
      "x",
      6,
      7,
      "\nc\nx",
      5,
      0,
      "h{}\n\n1",
      "call",
      "publish",
      5,
      7,
      0,
      0,
      "y",
      "i",
      "y",
      "p",
      "2",
      "schedule",
      5,
      10,
      60_000,
      8,
      "x",
      6,
      7,
      "\nc\nx",
      5,
      0,
      "\n3",
      "call",
      "schedule",
      5,
      10,
      0,
      0,
      "z",
      6,
      7,
      "\nc\nz",
      "+0",
      0,
      "\n4",
      "call"
    ],
    reply: ["done"],
    after: {
      counts: { "a\ng\nc": "1", "c\ng\nc": "1", "z\ng\nc": "1" },
      log: log(0),
      marks: doneMarks,
      to: { entries: ["p 0", "i x h {} p 1", "i y p 2", "i z p 4"], pending: 0 },
      seen: ["new call x", "expires"]
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: forgets the trials of its delivery",
    script: commit,
    seed: [...mine, ["hset", "trials", "l1-1", "1 2", "l2-1", "1 2"]],
    keys: [...commitKeys, "trials"],
    args: [...fence, "tried", 5, 1, "l1-1"],
    reply: ["done"],
    after: {
      counts: { "a\ng\nc": "1", "c\ng\nc": "1", "z\ng\nc": "1" },
      log: log(0),
      marks: doneMarks,
      trials: { "l2-1": "1 2" }
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: nothing when the key has another holder",
    script: commit,
    seed: [...held, marked(`${far} t2`), ["set", "counter", "41"]],
    keys: [...commitKeys, "counter"],
    args: [...fence, "incrby", 5, 1, 1],
    reply: ["lost"],
    after: { log: log(1), marks: { "": since, "c\nm": "far t2" }, counter: ["41", "stays"] }
  },
  {
    does: "commit: nothing when what it counts in is no hash",
    script: commit,
    seed: [...mine, ["set", "counts", "x"]],
    keys: commitKeys,
    args: [...fence],
    reply: ["type", "$counts", "string", "hash"],
    after: { ...untouched, counts: ["x", "stays"] }
  },
  {
    does: "commit: nothing when a log is missing",
    script: commit,
    seed: [...mine, ["set", "counter", "41"]],
    keys: [...commitKeys, "counter", "to"],
    args: [...fence, "incrby", 5, 1, 1, "publish", 6, 5, 0, 0, "x", "p", "2"],
    reply: ["unknown", "$to"],
    after: { ...untouched, counter: ["41", "stays"] }
  },
  {
    does: "commit: nothing when a later write meets another type",
    script: commit,
    seed: [...mine, ["set", "counter", "41"], ["set", "text", "x"]],
    keys: [...commitKeys, "counter", "text"],
    args: [...fence, "incrby", 5, 1, 1, "hset", 6, 2, "a", "1"],
    reply: ["type", "$text", "string", "hash"],
    after: { ...untouched, counter: ["41", "stays"], text: ["x", "stays"] }
  },
  {
    does: "commit: nothing when what is set in it meets another type, or is no number",
    script: commit,
    seed: mine,
    keys: [...commitKeys, "text"],
    args: [...fence, "set", 5, 1, "1.5", "incrby", 5, 1, 1],
    reply: ["number", "$text"],
    after: untouched
  },
  {
    does: "commit: refuses an integer that could overflow",
    script: commit,
    seed: [...mine, ["set", "counter", "9223372036854775807"]],
    keys: [...commitKeys, "counter"],
    args: [...fence, "incrby", 5, 1, 1],
    reply: ["number", "$counter"],
    after: { ...untouched, counter: ["9223372036854775807", "stays"] }
  },
  {
    does: "commit of the outbox: lets each entry of a shard pass once",
    script: commit,
    seed: [["hset", "relayed", "3", "5-7"], ["zadd", "arrived", 7, "m"], ["xadd", "to", "1-1", "p", "0"]],
    keys: [...relayKeys, "to"],
    args: ["relay", "3", "5-10", "n", "", "", 0, 0, 0, "events", "publish", 5, 5, 0, 0, "x", "p", "1"],
    reply: ["done"],
    after: { arrived: { m: "7", n: "8" }, relayed: { 3: "5-10" }, to: { entries: ["p 0", "p 1"], pending: 0 } },
    again: { reply: ["already"] }
  },
  {
    does: "commit of the outbox: asks for a look at an entry that is behind others, and was not seen here",
    script: commit,
    seed: [["hset", "relayed", "3", "5-17"], ["xadd", "to", "1-1", "p", "0"]],
    keys: [...relayKeys, "to"],
    args: ["relay", "3", "5-10", "n", "", "", 0, 0, 0, "events", "publish", 5, 5, 0, 0, "x", "p", "1"],
    reply: ["behind"],
    after: { relayed: { 3: "5-17" }, to: { entries: ["p 0"], pending: 0 } }
  },
  {
    does: "commit of the outbox: lets it pass when it is still in the outbox, once, and the fence stays",
    script: commit,
    seed: [["hset", "relayed", "3", "5-17"], ["xadd", "to", "1-1", "p", "0"]],
    keys: [...relayKeys, "to"],
    args: ["relay", "3", "5-10", "n", 1, "", 0, 0, 0, "events", "publish", 5, 5, 0, 0, "x", "p", "1"],
    reply: ["done"],
    after: { arrived: { n: "1" }, relayed: { 3: "5-17" }, to: { entries: ["p 0", "p 1"], pending: 0 } },
    again: { reply: ["already"] }
  },
  {
    does: "commit of the outbox: remembers the last thousand",
    script: commit,
    seed: [
      ["zadd", "arrived", ...Array.from({ length: 1_000 }, (_, i) => [i + 5, `m${i}`]).flat()],
      ["xadd", "to", "1-1", "p", "0"]
    ],
    keys: [...relayKeys, "to"],
    args: ["relay", "3", "5-10", "n", "", "", 0, 0, 0, "events", "publish", 5, 5, 0, 0, "x", "p", "1"],
    reply: ["done"],
    after: {
      arrived: Object.fromEntries([
        ...Array.from({ length: 999 }, (_, i) => [`m${i + 1}`, String(i + 6)] as const),
        ["n", "1005"]
      ]),
      relayed: { 3: "5-10" },
      to: { entries: ["p 0", "p 1"], pending: 0 }
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: nothing when a log has too few positions left",
    script: commit,
    seed: [...mine, ["xadd", "to", "18446744073709551615-18446744073709551614", "p", "0"]],
    keys: [...commitKeys, "to"],
    args: [
      fence,
      ["publish", 5, 5, 0, 0, "x", "p", "1"],
      ["publish", 5, 5, 0, 0, "y", "p", "2"]
    ].flat(),
    reply: ["full", "$to"],
    after: { ...untouched, to: { entries: ["p 0"], pending: 0 } }
  },
  {
    does: "sweep: marks of which one counts stay",
    script: sweepOnce,
    seed: [["hset", "marks", "", head, "c\nm", past], ["hset", "old", "", head, "c\nn", far]],
    keys: ["marks", "old"],
    args: [day],
    reply: 0,
    after: { marks: { "": since, "c\nm": "past" }, old: { "": since, "c\nn": "far" } }
  },
  {
    does: "sweep: those whose time is over go",
    script: sweepOnce,
    seed: [["hset", "marks", "", head, "c\nm", far], ["hset", "old", "", `${past} ${past}`, "c\nn", past]],
    keys: ["marks", "old"],
    args: [day],
    reply: 1,
    after: { marks: { "": since, "c\nm": "far" } },
    again: { reply: 0 }
  },
  {
    does: "sweep: those that do not say it are given their time",
    script: sweepOnce,
    seed: [["hset", "marks", "c\nm", "x"]],
    keys: ["marks", "old"],
    args: [day],
    reply: 0,
    after: { marks: { "": "now later", "c\nm": "x" } }
  },
  {
    does: "once: begins a free key, again under the same token, and not under another",
    script: deduplicate,
    keys: ["key", "proof"],
    args: ["begin", "t1", 60_000, 600_000],
    reply: ["mine", 0],
    after: { key: ["t1", "expires"] }
  },
  {
    does: "once: does not renew a key that is free",
    script: deduplicate,
    keys: ["key", "proof"],
    args: ["renew", "t1", 60_000, 600_000],
    reply: ["lost", 0],
    after: {}
  },
  {
    does: "once: finishes under its token",
    script: deduplicate,
    seed: [["set", "key", "t1"]],
    keys: ["key", "proof"],
    args: ["finish", "t1", 60_000, 600_000],
    reply: ["done", 0],
    after: { key: ["=t1", "expires"], proof: ["", "expires"] },
    again: { reply: ["already", 0] }
  },
  {
    does: "once: needs no proof of what stays done for longer",
    script: deduplicate,
    seed: [["set", "key", "t1"]],
    keys: ["key", "proof"],
    args: ["finish", "t1", 600_000, 600_000],
    reply: ["done", 0],
    after: { key: ["=t1", "expires"] },
    again: { reply: ["already", 0] }
  },
  {
    does: "once: knows by the proof what was finished, when the key is another's by now",
    script: deduplicate,
    seed: [["set", "key", "t2"], ["set", "proof", ""]],
    keys: ["key", "proof"],
    args: ["finish", "t1", 60_000, 600_000],
    reply: ["already", 0],
    after: { key: ["t2", "stays"], proof: ["", "stays"] }
  },
  {
    does: "once: refuses to finish under another",
    script: deduplicate,
    seed: [["set", "key", "t2"]],
    keys: ["key", "proof"],
    args: ["finish", "t1", 60_000, 600_000],
    reply: ["lost", 0],
    after: { key: ["t2", "stays"] }
  },
  {
    does: "once: frees under its token",
    script: deduplicate,
    seed: [["set", "key", "t1"]],
    keys: ["key", "proof"],
    args: ["free", "t1", 0, 600_000],
    reply: ["free", 0],
    after: {},
    again: { reply: ["lost", 0] }
  },
  {
    does: "once: forgets what is done, and leaves what is being done",
    script: deduplicate,
    seed: [["set", "key", "=t1"]],
    keys: ["key", "proof"],
    args: ["forget", "", 0, 600_000],
    reply: ["free", 0],
    after: {},
    again: { reply: ["lost", 0] }
  }
]

describe("scripts of exactly-once", () => {
  it.each(cases)("$does", async ({ after, again, args, keys, reply, script, seed = [] }) => {
    const prefix = `{${freshPrefix()}}`
    const name = (key: string) => `${prefix}:${key}`
    for (const [command, key, ...rest] of seed) {
      await (command === "hold"
        // A group with a consumer that has read everything.
        ? client.multi().xgroup("CREATE", name(key), "g", "0").xreadgroup("GROUP", "g", "me", "STREAMS", name(key), ">")
          .exec()
        : client.call(command, name(key), ...rest))
    }
    const run = async () => {
      const result = await client.eval(script.lua, keys.length, ...keys.map(name), ...args)
      return JSON.parse(JSON.stringify(result).replaceAll(`${prefix}:`, "$"))
    }
    assert.deepStrictEqual(await run(), reply)
    assert.deepStrictEqual(await dump(prefix), after)
    assert.deepStrictEqual(await run(), again?.reply ?? reply)
    assert.deepStrictEqual(await dump(prefix), again?.after ?? after)
  })
})
