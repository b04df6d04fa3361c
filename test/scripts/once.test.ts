/**
 * The effect of the scripts of exactly-once on the data: seeded keys, one run, the whole keyspace compared, and a second run. Times are
 * compared by name (see `fixtures/Keyspace.ts`).
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
import * as Keyspace from "../fixtures/Keyspace.ts"
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

const start = Date.now()
const far = start + 1_000_000
const past = start - 1_000_000

const day = 86_400_000
/** A message of the log that a consumer holds. */
const held: ReadonlyArray<Command> = [
  ["xadd", "log", "1-1", "i", "m", "p", "1"],
  ["hold", "log"]
]
const log = (pending: number, ...more: ReadonlyArray<string>) => ({ entries: ["i m p 1", ...more], pending })
/** The field about all keys of a hash: since when it has keys, and until when one of them counts. */
const head = `${past} ${far}`
const keyed = (value: string): Command => ["hset", "once", "", head, "c\nm", value]
const since = "past far"

const commitKeys = ["log", "once", "older", "counts"]
const relayKeys = ["relayed", "arrived", "arrived", "arrived"]
const fence = ["ack", "g", "1-1", "c\nm", "t1", "c", 1, 1, day, "events"]
const mine = [...held, keyed(`${far} t1`)]
const untouched = { log: log(1), once: { "": since, "c\nm": "far t1" } }
/** The key of the delivery is done for that many seconds. */
const doneFor = (seconds: number) => ({ "": `past now+${seconds}s`, "c\nm": `now+${seconds}s` })

const cases: ReadonlyArray<Case> = [
  {
    does: "begin: takes free keys, and tells done and busy ones",
    script: beginOnce,
    seed: [[
      "hset",
      "once",
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
    keys: ["once", "older"],
    args: [30_000, 2_000_000, "t1", "c\nnew", "c\ndone", "c\nforgotten", "c\nbusy", "c\nover", "c\nown", "c\nothers"],
    reply: [1, 0, 1, -1, 1, 1, 1],
    after: {
      once: {
        "": since,
        "c\nnew": "now+30s t1",
        "c\ndone": "far",
        "c\nforgotten": "now+30s t1",
        "c\nbusy": "far t2",
        "c\nover": "now+30s t1",
        "c\nown": "now+30s t1",
        "c\nothers": "now+30s t1"
      }
    }
  },
  {
    does: "begin: reads the keys of the time before",
    script: beginOnce,
    seed: [["hset", "older", "c\ndone", far, "c\nforgotten", past, "c\nbusy", `${far} t2`, "c\nown", `${far} t1`]],
    keys: ["once", "older"],
    args: [30_000, day, "t1", "c\ndone", "c\nforgotten", "c\nbusy", "c\nown"],
    reply: [0, 1, -1, 1],
    after: {
      once: { "": "now now+60s", "c\nforgotten": "now+30s t1", "c\nown": "now+30s t1" },
      older: { "c\ndone": "far", "c\nforgotten": "past", "c\nbusy": "far t2", "c\nown": "far t1" }
    }
  },
  {
    does: "begin: keys become the older ones after their time, when none of those counts any more",
    script: beginOnce,
    seed: [["hset", "once", "", head, "c\ndone", far], ["hset", "older", "", `${past} ${past}`, "c\nolder", past]],
    keys: ["once", "older"],
    args: [30_000, 1000, "t1", "c\ndone", "c\nolder"],
    reply: [0, 1],
    after: {
      once: { "": "now now+60s", "c\nolder": "now+30s t1" },
      older: { "": since, "c\ndone": "far" }
    }
  },
  {
    does: "begin: older keys that count stay, however short the one that begins would keep its own",
    script: beginOnce,
    seed: [["hset", "once", "", head, "c\ndone", far], ["hset", "older", "", head, "c\nolder", far]],
    keys: ["once", "older"],
    args: [30_000, 1000, "t1", "c\nnew", "c\nolder"],
    reply: [1, 0],
    after: {
      once: { "": since, "c\ndone": "far", "c\nnew": "now+30s t1" },
      older: { "": since, "c\nolder": "far" }
    }
  },
  {
    does: "finish: acknowledges deliveries whose key has this token, and records the keys as done",
    script: ackOnce,
    seed: mine,
    keys: ["log", "once", "older", "counts"],
    args: ["g", "c", 0, 2_000_000, "me", 0, "1-1", "c\nm", "t1", 2, ""],
    reply: [1],
    after: { counts: { "a\ng\nc": "1", "c\ng\nc": "2" }, log: log(0), once: doneFor(2_000) },
    again: { reply: [2] }
  },
  ...([["log", 0, "l1-1", "r1-1"], ["retry stream", 1, "r1-1", "l1-1"]] as const).map((
    [what, isRetry, forgotten, left]
  ): Case => ({
    does: `finish: forgets the trials of what it acknowledges of a ${what}, and of nothing else`,
    script: ackOnce,
    seed: [...mine, ["hset", "trials", forgotten, "1 2", "l2-1", "1 2", left, "1 2"]],
    keys: ["log", "once", "older", "counts", "trials"],
    args: ["g", "c", isRetry, 2_000_000, "me", 0, "1-1", "c\nm", "t1", 0, "", "2-1", "c\ngone", "t1", 0, ""],
    reply: [1, 0],
    after: {
      counts: isRetry === 1 ? { "a\ng\nc": "1", "z\ng\nc": "1" } : { "a\ng\nc": "1" },
      log: log(0),
      once: doneFor(2_000),
      trials: { "l2-1": "1 2", [left]: "1 2" }
    },
    again: { reply: [2, 0] }
  })),
  {
    does: "finish: finds its key in the time before",
    script: ackOnce,
    seed: [...held, ["hset", "older", "c\nm", `${past} t1`]],
    keys: ["log", "once", "older", "counts"],
    args: ["g", "c", 0, 2_000_000, "me", 0, "1-1", "c\nm", "t1", 2, ""],
    reply: [1],
    after: {
      counts: { "a\ng\nc": "1", "c\ng\nc": "2" },
      log: log(0),
      once: { "": "now now+2000s", "c\nm": "now+2000s" },
      older: { "c\nm": "past t1" }
    },
    again: { reply: [2] }
  },
  {
    does: "finish: refuses a key of another token, or of none, and touches nothing",
    script: ackOnce,
    seed: [...held, keyed(`${past} t2`)],
    keys: ["log", "once", "older", "counts"],
    args: ["g", "c", 0, day, "me", 0, "1-1", "c\nm", "t1", 0, "", "1-1", "c\ngone", "t1", 0, ""],
    reply: [0, 0],
    after: { log: log(1), once: { "": since, "c\nm": "past t2" } }
  },
  {
    does: "settle: frees the key of a delivery",
    script: settle,
    seed: mine,
    keys: ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials", "once", "older"],
    args: ["g", "me", "c", "events", 0, "1-1", 1, "dead", "g\nc\nterm", "{}\n1", "c\nm", "t1", ""],
    reply: [],
    after: {
      log: log(0),
      counts: { "b\ng\nc": "1", "d\ng\nc\nterm": "1", "f\ng\nc": "1" },
      dead: { entries: ["k g\nc\nterm b {}\n1"], pending: 0 },
      once: { "": since }
    },
    again: { reply: ["1-1"] }
  },
  {
    does: "settle: leaves the key of another token alone",
    script: settle,
    seed: [...held, keyed(`${far} t2`)],
    keys: ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials", "once", "older"],
    args: ["g", "me", "c", "events", 0, "1-1", 1, "dead", "g\nc\nterm", "{}\n1", "c\nm", "t1", ""],
    reply: [],
    after: {
      log: log(0),
      counts: { "b\ng\nc": "1", "d\ng\nc\nterm": "1", "f\ng\nc": "1" },
      dead: { entries: ["k g\nc\nterm b {}\n1"], pending: 0 },
      once: { "": since, "c\nm": "far t2" }
    },
    again: { reply: ["1-1"] }
  },
  {
    does: "commit: everything, with the acknowledgement and the key",
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
      once: doneFor(86_400),
      to: { entries: ["p 0", "i x p 2"], pending: 0 },
      seen: ["new t x", "now+60s"],
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
      once: doneFor(86_400),
      to: { entries: ["p 0", "i x l 0 b h{}\n\n1", "i y p 2", "i z b \n4"], pending: 0 },
      seen: ["new call x", "now+60s"]
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
      once: doneFor(86_400),
      trials: { "l2-1": "1 2" }
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: acknowledges further deliveries, of its stream and of others",
    script: commit,
    seed: [
      ...mine,
      ["xadd", "log", "2-1", "i", "n", "p", "2"],
      ["hold", "log"],
      ["xadd", "retry", "1-1", "i", "o", "p", "3"],
      ["hold", "retry"],
      ["hset", "once", "d\nn", `${far} t1`, "c\no", `${far} t2`]
    ],
    keys: [...commitKeys, "log", "retry", "counter"],
    args: [
      ...fence,
      "ack",
      5,
      6,
      "2-1",
      "d\nn",
      "t1",
      "d",
      0,
      0,
      "ack",
      6,
      6,
      "1-1",
      "c\no",
      "t2",
      "c",
      0,
      1,
      "incrby",
      7,
      1,
      1
    ],
    reply: ["done"],
    after: {
      counts: { "a\ng\nc": "2", "a\ng\nd": "1", "c\ng\nc": "1", "z\ng\nc": "2" },
      log: log(0, "i n p 2"),
      retry: { entries: ["i o p 3"], pending: 0 },
      once: { ...doneFor(86_400), "d\nn": "now+86400s", "c\no": "now+86400s" },
      counter: ["1", "stays"]
    },
    again: { reply: ["already"] }
  },
  {
    does: "commit: nothing when a further delivery has another holder, or is done",
    script: commit,
    seed: [...mine, ["hset", "once", "c\nn", `${far} t2`], ["set", "counter", "41"]],
    keys: [...commitKeys, "log", "counter"],
    args: [...fence, "ack", 5, 6, "2-1", "c\nn", "t1", "c", 0, 0, "incrby", 6, 1, 1],
    reply: ["lost"],
    after: {
      log: log(1),
      once: { "": since, "c\nm": "far t1", "c\nn": "far t2" },
      counter: ["41", "stays"]
    }
  },
  {
    does: "commit: nothing when the key has another holder",
    script: commit,
    seed: [...held, keyed(`${far} t2`), ["set", "counter", "41"]],
    keys: [...commitKeys, "counter"],
    args: [...fence, "incrby", 5, 1, 1],
    reply: ["lost"],
    after: { log: log(1), once: { "": since, "c\nm": "far t2" }, counter: ["41", "stays"] }
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
    after: { arrived: { m: 7, n: 8 }, relayed: { 3: "5-10" }, to: { entries: ["p 0", "p 1"], pending: 0 } },
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
    after: { arrived: { n: 1 }, relayed: { 3: "5-17" }, to: { entries: ["p 0", "p 1"], pending: 0 } },
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
        ...Array.from({ length: 999 }, (_, i) => [`m${i + 1}`, i + 6] as const),
        ["n", 1_005]
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
    does: "sweep: keys of which one counts stay",
    script: sweepOnce,
    seed: [["hset", "once", "", head, "c\nm", past], ["hset", "older", "", head, "c\nn", far]],
    keys: ["once", "older"],
    args: [day],
    reply: 0,
    after: { once: { "": since, "c\nm": "past" }, older: { "": since, "c\nn": "far" } }
  },
  {
    does: "sweep: keys go when their time is over",
    script: sweepOnce,
    seed: [["hset", "once", "", head, "c\nm", far], ["hset", "older", "", `${past} ${past}`, "c\nn", past]],
    keys: ["once", "older"],
    args: [day],
    reply: 1,
    after: { once: { "": since, "c\nm": "far" } },
    again: { reply: 0 }
  },
  {
    does: "sweep: keys of a hash without a time get one",
    script: sweepOnce,
    seed: [["hset", "once", "c\nm", "x"]],
    keys: ["once", "older"],
    args: [day],
    reply: 0,
    after: { once: { "": "now now+86400s", "c\nm": "x" } }
  },
  {
    does: "once: begins a free key, again under the same token, and not under another",
    script: deduplicate,
    keys: ["key", "proof"],
    args: ["begin", "t1", 60_000, 600_000],
    reply: ["mine", 0],
    after: { key: ["t1", "now+60s"] }
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
    after: { key: ["=t1", "now+60s"], proof: ["", "now+600s"] },
    again: { reply: ["already", 0] }
  },
  {
    does: "once: needs no proof of what stays done for longer",
    script: deduplicate,
    seed: [["set", "key", "t1"]],
    keys: ["key", "proof"],
    args: ["finish", "t1", 600_000, 600_000],
    reply: ["done", 0],
    after: { key: ["=t1", "now+600s"] },
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

/** Streams by the fields of their entries, and the number of pending ones. */
const brief = (contents: Keyspace.Contents) =>
  Keyspace.withStreams(contents, ({ entries, groups = {} }) => ({
    entries: entries.map(([, ...fields]) => fields.join(" ")),
    pending: Object.values(groups).reduce((sum, { pending }) => sum + pending.length, 0)
  }))

describe("scripts of exactly-once", () => {
  it.each(cases)("$does", async ({ after, again, args, keys, reply, script, seed = [] }) => {
    const prefix = `{${freshPrefix()}}:`
    const { dump, during } = Keyspace.open(client, prefix, { far, past })
    const name = (key: string) => prefix + key
    await during(() =>
      Promise.all(seed.map(([command, key, ...rest]) =>
        command === "hold"
          // A group with a consumer that has read everything.
          ? client.multi().xgroup("CREATE", name(key), "g", "0").xreadgroup(
            "GROUP",
            "g",
            "me",
            "STREAMS",
            name(key),
            ">"
          )
            .exec()
          : client.call(command, name(key), ...rest)
      ))
    )
    const run = async () => {
      const result = await during(() => client.eval(script.lua, keys.length, ...keys.map(name), ...args))
      return JSON.parse(JSON.stringify(result).replaceAll(prefix, "$"))
    }
    assert.deepStrictEqual(await run(), reply)
    assert.deepStrictEqual(brief(await dump()), after)
    assert.deepStrictEqual(await run(), again?.reply ?? reply)
    assert.deepStrictEqual(brief(await dump()), again?.after ?? after)
  })
})
