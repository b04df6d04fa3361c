/**
 * The effect of each script on the data: seeded keys, one run, the whole keyspace compared, and a second run. `$name` stands for the
 * key of that name in the namespace of the case. Times are compared by name (see `fixtures/Keyspace.ts`).
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Redis } from "ioredis"
import { inject } from "vitest"
import type { Script } from "../../src/Redis.ts"
import { freshPrefix } from "../contract/kit.ts"
import * as Keyspace from "../fixtures/Keyspace.ts"
import { namesOf, scriptNamed } from "../fixtures/scripts.ts"

type Arg = string | number

interface Case {
  readonly does: string
  readonly seed?: ReadonlyArray<ReadonlyArray<Arg>>
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<Arg>
  readonly reply: unknown
  readonly after: Keyspace.Contents
  /** The second run, where it is not like the first. */
  readonly again?: { readonly reply: unknown; readonly after?: Keyspace.Contents }
}

const client = new Redis({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

const start = Date.now()
const far = start + 1_000_000
const past = start - 1_000_000
const recent = start - 500_000

const run = (script: Script, { after, again, args, keys, reply, seed = [] }: Case) => async () => {
  const prefix = `{${freshPrefix()}}:`
  const { dump, during, plain } = Keyspace.open(client, prefix, { far, past, recent })
  const keyed = (arg: Arg) =>
    typeof arg === "string" && arg.startsWith("$") && arg !== "$" ? prefix + arg.slice(1) : arg
  await during(() => Promise.all(seed.map(([name, ...rest]) => client.call(String(name), rest.map(keyed)))))
  const evaluate = () =>
    during(() => client.eval(script.lua, keys.length, ...keys.map((key) => prefix + key), ...args.map(String)))
      .then(plain, (error: Error) => error.message.replace(prefix, "").replace(/ script:.*/, ""))
  assert.deepStrictEqual(await evaluate(), reply)
  assert.deepStrictEqual(await dump(), after)
  assert.deepStrictEqual(await evaluate(), again === undefined ? reply : again.reply)
  assert.deepStrictEqual(await dump(), again?.after ?? after)
}

/** Messages `1-0`, `2-0`, … in the log, handed out to the owners given, long ago. */
const handedOut = (...owners: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<Arg>> => [
  ["xgroup", "create", "$log", "g", "0", "mkstream"],
  ...owners.flatMap((owner, i): Array<Array<Arg>> => [
    ["xadd", "$log", `${i + 1}-0`, "i", `m${i + 1}`, "p", "x"],
    ["xreadgroup", "group", "g", owner, "count", 1, "streams", "$log", ">"],
    ["xclaim", "$log", "g", owner, 0, `${i + 1}-0`, "idle", Keyspace.oldMillis, "retrycount", 1, "justid"]
  ])
]
const logged = (...numbers: ReadonlyArray<number>) => numbers.map((n) => [`${n}-0`, "i", `m${n}`, "p", "x"])
const seeded = (...numbers: ReadonlyArray<number>) =>
  numbers.map((n): ReadonlyArray<Arg> => ["xadd", "$log", `${n}-0`, "i", `m${n}`, "p", "x"])
/** So large that it has a node of the stream to itself: only whole nodes are removed. */
const large = (n: number): ReadonlyArray<Arg> => ["xadd", "$log", `${n}-0`, "i", `m${n}`, "p", "x".repeat(5_000)]
/** What `append` is told of a search: none, or one from a position, for a message that was sent a hundred years ago. */
const unsearched = ["", "", 0, 0, 0, -1, 0, ""] as const
const veryOld = 3_000_000_000_000
const old = [veryOld, 0, -1, 0, ""] as const
const searched = (from: string) => [from, from, 0, ...old] as const

const lastPosition = "18446744073709551615-18446744073709551615"
const settleKeys = ["log", "retry", "waiting", "bodies", "dead", "retries", "meta", "counts", "trials"]
const settleArgs = ["g", "c", "ch", "events", 0]
/** Of each stream: the stream, the retry stream and the bodies of its channel. */
const attachKeys = (...streams: ReadonlyArray<readonly [string, string, string]>) => [
  "floors",
  "counts",
  "settled",
  "removed",
  "taken",
  ...streams.flatMap((stream) => [...stream, "busy", "lines", "behind", "reached"])
]
const trimArgs = (
  options: {
    readonly version?: string
    readonly grace?: number
    readonly age?: number
    readonly least?: string
    readonly longest?: number
    readonly abandoned?: number
  },
  ...groups: ReadonlyArray<string>
) => [
  options.version ?? "0",
  options.grace ?? 0,
  options.age ?? 0,
  options.least ?? "",
  options.longest ?? -1,
  options.abandoned ?? 1e9,
  "ch",
  ...groups
]

const cases: Readonly<Record<string, ReadonlyArray<Case>>> = {
  missingPermissions: [
    {
      does: "tells what may not be done, and does nothing",
      seed: [],
      keys: ["meta"],
      args: ["xadd", "xinfo|groups", "nosuch"],
      reply: [],
      after: {},
      again: { reply: [] }
    }
  ],
  ack: [
    {
      does: "acknowledges and counts what was pending, once, stream by stream",
      seed: [...handedOut("c", "c", "c"), ["set", "$wrong", "x"]],
      keys: ["counts", "log", "wrong", "missing", "log"],
      args: [
        "g",
        "ch",
        1,
        1,
        2,
        "1-0",
        "2-0",
        "w",
        0,
        0,
        1,
        "1-0",
        "m",
        0,
        0,
        1,
        "1-0",
        "ch",
        5,
        0,
        2,
        "2-0",
        "3-0"
      ],
      reply: [2, "WRONGTYPE Operation against a key holding the wrong kind of value", 0, 1],
      after: {
        counts: { "a\ng\nch": "3", "u\ng\nch": "1", "z\ng\nch": "2" },
        log: { entries: logged(1, 2, 3), groups: { g: { at: "3-0", consumers: 1, pending: [] } } },
        wrong: ["x", "stays"]
      },
      again: { reply: [0, "WRONGTYPE Operation against a key holding the wrong kind of value", 0, 0] }
    },
    {
      does: "changes nothing when what it counts in is no hash",
      seed: [...handedOut("c"), ["set", "$counts", "x"]],
      keys: ["counts", "log"],
      args: ["g", "ch", 0, 0, 1, "1-0"],
      reply: "WRONGTYPE counts is a string, expected a hash",
      after: {
        counts: ["x", "stays"],
        log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [["1-0", "c", 1, "old"]] } } }
      }
    }
  ],
  removeGroup: [{
    does: "removes the group from a channel, with its totals; its dead letters stay",
    seed: [
      ...handedOut("c"),
      ["xgroup", "create", "$log", "h", "0"],
      ["xadd", "$retry", "9-0", "p", "x"],
      ["sadd", "$retries", "ch", "other"],
      ["hset", "$floors", "ch", "1-0", "other", "1-0"],
      ["hset", "$meta", "v", 3],
      ["hset", "$bodies", "2-0", "x"],
      ["hset", "$trials", "l1-0", "1 2"],
      ["sadd", "$busy", "k"],
      ["hset", "$lines", "k", "l2-0 l2-0"],
      ["hset", "$behind", "l1-0", "l2-0"],
      ["hset", "$reached", "l", "2-0"],
      [
        "hset",
        "$counts",
        "a\ng\nch",
        1,
        "s\ng\nch",
        0,
        "x\ng\nch",
        1,
        "z\ng\nch",
        1,
        "a\ng\nother",
        1,
        "d\ng\nch\nterm",
        1
      ]
    ],
    keys: [
      "log",
      "retry",
      "retries",
      "floors",
      "meta",
      "counts",
      "bodies",
      "trials",
      "settled",
      "busy",
      "lines",
      "behind",
      "reached"
    ],
    args: ["g", "ch", 1],
    reply: 1,
    after: {
      counts: { "a\ng\nother": "1", "d\ng\nch\nterm": "1" },
      floors: { other: "1-0" },
      log: { entries: logged(1), groups: { h: { at: "0-0", consumers: 0, pending: [] } } },
      meta: { v: "4" },
      retries: ["other"]
    },
    again: {
      reply: 1,
      after: {
        counts: { "a\ng\nother": "1", "d\ng\nch\nterm": "1" },
        floors: { other: "1-0" },
        log: { entries: logged(1), groups: { h: { at: "0-0", consumers: 0, pending: [] } } },
        meta: { v: "5" },
        retries: ["other"]
      }
    }
  }],
  statistics: [
    {
      does: "sees a channel and its groups, and changes nothing",
      seed: [
        ["xadd", "$log", `${past}-0`, "p", "x"],
        ["xadd", "$log", `${recent}-0`, "p", "x"],
        ["xgroup", "create", "$log", "g", `${past}-0`],
        ["xadd", "$retry", "1-0", "p", "x"],
        ["hset", "$counts", "s\ng\nch", 0, "a\ng\nch", 1, "c\ng\nch", 2, "d\ng\nch\nterm", 3, "x\ng\nch", 4],
        ["hset", "$scheduled", "m", "x"],
        ["hset", "$bodies", "w", "x"]
      ],
      keys: ["log", "counts", "scheduled", "retry", "bodies", "retry:h", "bodies:h"],
      args: ["ch", "g", "h"],
      reply: [
        2,
        2,
        1,
        [
          [-1, 0, 1, 1, "age of recent", 0, 1, 0, 0, 0, 0, 2, 4, 0, 3, 0, 0, 0, []],
          [2, 0, 0, 0, "age of past", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, []]
        ],
        0
      ],
      after: {
        bodies: { w: "x" },
        counts: { "a\ng\nch": "1", "c\ng\nch": "2", "d\ng\nch\nterm": "3", "s\ng\nch": "0", "x\ng\nch": "4" },
        log: {
          entries: [["past-0", "p", "x"], ["recent-0", "p", "x"]],
          groups: { g: { at: "past-0", consumers: 0, pending: [] } }
        },
        retry: { entries: [["1-0", "p", "x"]] },
        scheduled: { m: "x" }
      }
    },
    {
      does: "sees nothing of a channel whose log is gone but what is scheduled",
      seed: [["hset", "$scheduled", "m", "x"]],
      keys: ["log", "counts", "scheduled"],
      args: ["ch"],
      reply: [0, 0, 1, [], 0],
      after: { scheduled: { m: "x" } }
    }
  ],
  append: [
    {
      does: "tells that a channel has no log",
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...unsearched, "i", "b", "p", "y"],
      reply: ["unknown"],
      after: {}
    },
    {
      does: "opens a window with its message, and finds it when it is repeated",
      seed: [["xadd", "$log", "1-0", "i", "a", "p", "x"]],
      keys: ["log", "seen", "log"],
      args: ["b", "call", 60_000, 0, ...unsearched, "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: {
        log: { entries: [["1-0", "i", "a", "p", "x"], ["new", "i", "b", "p", "y"]] },
        seen: ["new call b", "now+60s"]
      },
      again: { reply: ["found", "new"] }
    },
    {
      does: "keeps what the call was told beside a window",
      seed: [["xadd", "$log", "1-0", "i", "a", "p", "x"]],
      keys: ["log", "seen", "answer"],
      args: ["b", "call", 60_000, 70_000, ...unsearched, "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: {
        log: { entries: [["1-0", "i", "a", "p", "x"], ["new", "i", "b", "p", "y"]] },
        seen: ["new call b", "now+60s"],
        answer: ["new", "now+70s"]
      },
      again: { reply: ["found", "new"] }
    },
    {
      does: "tells a call what it was told, though its message and its window are gone and another has opened one",
      seed: [
        ["xadd", "$log", "9-0", "i", "c", "p", "z"],
        ["set", "$answer", "5-0", "px", 60_000],
        ["set", "$seen", "9-0 other c", "px", 60_000]
      ],
      keys: ["log", "seen", "answer"],
      args: ["b", "call", 60_000, 70_000, ...unsearched, "i", "b", "p", "y"],
      reply: ["found", "5-0"],
      after: {
        log: { entries: [["9-0", "i", "c", "p", "z"]] },
        seen: ["9-0 other c", "now+60s"],
        answer: ["5-0", "now+60s"]
      }
    },
    {
      does: "tells a duplicate of another call",
      seed: [["xadd", "$log", "1-0", "i", "a", "p", "x"], ["set", "$seen", "1-0 other a", "px", 60_000]],
      keys: ["log", "seen", "log"],
      args: ["a", "call", 60_000, 0, ...unsearched, "i", "a", "p", "x"],
      reply: ["duplicate", "1-0 other a"],
      after: { log: { entries: [["1-0", "i", "a", "p", "x"]] }, seen: ["1-0 other a", "now+60s"] }
    },
    {
      does: "finds a message after a position, and opens its window",
      seed: [["xadd", "$log", "1-0", "i", "b", "p", "x"], ["xadd", "$log", "2-0", "h", "{}", "i", "b", "p", "y"]],
      keys: ["log", "seen", "log"],
      args: ["b", "call", 60_000, 0, ...searched("1-0"), "i", "b", "p", "y"],
      reply: ["found", "2-0"],
      after: {
        log: { entries: [["1-0", "i", "b", "p", "x"], ["2-0", "h", "{}", "i", "b", "p", "y"]] },
        seen: ["2-0 call b", "now+60s"]
      }
    },
    {
      does: "adds what is not there, where all is there behind the position",
      seed: seeded(1, 2),
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...searched("1-0"), "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: { log: { entries: [...logged(1, 2), ["new", "i", "b", "p", "y"]] } },
      again: { reply: ["found", "new"] }
    },
    {
      does: "says that it may be gone: the position is, it is old, and a group has been handed more",
      seed: [...seeded(5), ["xgroup", "create", "$log", "g", "4-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...searched("1-0"), "i", "b", "p", "y"],
      reply: ["gone"],
      after: { log: { entries: logged(5), groups: { g: { at: "4-0", consumers: 0, pending: [] } } } }
    },
    {
      does: "says that it may be gone: the position was gone, though the first entry is not behind it",
      seed: [...seeded(5), ["xgroup", "create", "$log", "g", "8-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, "5-0", "7-0", 1, ...old, "i", "b", "p", "y"],
      reply: ["gone"],
      after: { log: { entries: logged(5), groups: { g: { at: "8-0", consumers: 0, pending: [] } } } }
    },
    {
      does: "adds it where no group has been handed anything behind the position",
      seed: [...seeded(5), ["xgroup", "create", "$log", "g", "1-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...searched("1-0"), "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: {
        log: {
          entries: [...logged(5), ["new", "i", "b", "p", "y"]],
          groups: { g: { at: "1-0", consumers: 0, pending: [] } }
        }
      },
      again: { reply: ["found", "new"] }
    },
    {
      does: "adds it where it is too young to be removed for being acknowledged",
      seed: [...seeded(5), ["xgroup", "create", "$log", "g", "5-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, "1-0", "1-0", 0, veryOld, veryOld + 1, -1, 0, "", "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: {
        log: {
          entries: [...logged(5), ["new", "i", "b", "p", "y"]],
          groups: { g: { at: "5-0", consumers: 0, pending: [] } }
        }
      },
      again: { reply: ["found", "new"] }
    },
    {
      does: "adds it where the log begins before it was sent",
      seed: [...seeded(5), ["xgroup", "create", "$log", "g", "5-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, "1-0", "1-0", 0, 100, 0, 1, 50, "", "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: {
        log: {
          entries: [...logged(5), ["new", "i", "b", "p", "y"]],
          groups: { g: { at: "5-0", consumers: 0, pending: [] } }
        }
      },
      again: { reply: ["found", "new"] }
    },
    ...([
      ["length", [1, 0, ""]],
      ["age", [-1, 50, ""]],
      ["a minimal position", [-1, 0, "3-0"]]
    ] as const).map(([what, limits]): Case => ({
      does: `says that a limit of ${what} may have removed it`,
      seed: seeded(5),
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, "1-0", "1-0", 0, veryOld, veryOld + 1, ...limits, "i", "b", "p", "y"],
      reply: ["gone"],
      after: { log: { entries: logged(5) } }
    })),
    {
      does: "says that it may be gone from a log that was taken back and is empty",
      seed: [...seeded(1), ["xdel", "$log", "1-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...searched("7-0"), "i", "b", "p", "y"],
      reply: ["gone"],
      after: { log: { entries: [] } }
    },
    {
      does: "adds it to an empty log whose last message was the one before",
      seed: [...seeded(1), ["xdel", "$log", "1-0"]],
      keys: ["log", "log", "log"],
      args: ["b", "", 0, 0, ...searched("1-0"), "i", "b", "p", "y"],
      reply: ["added", "new"],
      after: { log: { entries: [["new", "i", "b", "p", "y"]] } },
      again: { reply: ["found", "new"] }
    },
    {
      does: "looks at no more than about 512 KiB",
      seed: seeded(1, 2, 3).map((command) => [...command.slice(0, -1), "x".repeat(300_000)]),
      keys: ["log", "log", "log"],
      args: ["m3", "", 0, 0, ...searched("0-0"), "i", "m3", "p", "y"],
      reply: ["more", "2-0"],
      after: { log: { entries: logged(1, 2, 3).map((entry) => [...entry.slice(0, -1), "x".repeat(300_000)]) } }
    }
  ],
  search: [
    {
      does: "looks for several behind a position, once from the first to the last",
      seed: seeded(1, 2, 3, 4),
      keys: ["log"],
      args: ["1-0", "", "m1", "m3", "m9"],
      reply: ["4-0", 1, 0, "m3", "3-0"],
      after: { log: { entries: logged(1, 2, 3, 4) } }
    },
    {
      does: "checks a position that is there",
      seed: seeded(1, 2, 3),
      keys: ["log"],
      args: ["2-0", "1-0", "m2", "m3"],
      reply: ["3-0", 1, 0, "m3", "3-0"],
      after: { log: { entries: logged(1, 2, 3) } }
    },
    {
      does: "says that what was to be checked is gone",
      seed: seeded(3),
      keys: ["log"],
      args: ["1-0", "1-0", "m3"],
      reply: ["3-0", 1, 1, "m3", "3-0"],
      after: { log: { entries: logged(3) } }
    },
    {
      does: "begins at the beginning where a failover has taken the log back behind the position",
      seed: seeded(1, 2),
      keys: ["log"],
      args: ["7-0", "7-0", "m2"],
      reply: ["2-0", 1, 1, "m2", "2-0"],
      after: { log: { entries: logged(1, 2) } }
    },
    {
      does: "looks at 500 entries",
      seed: Array.from({ length: 502 }, (_, i) => seeded(i + 1)).flat(),
      keys: ["log"],
      args: ["1-0", "", "m502"],
      reply: ["501-0", 0, 0],
      after: { log: { entries: logged(...Array.from({ length: 502 }, (_, i) => i + 1)) } }
    },
    {
      does: "looks at one large entry in a call, also where that is the one to be checked",
      seed: seeded(1, 2).map((command) => [...command.slice(0, -1), "x".repeat(600_000)]),
      keys: ["log"],
      args: ["1-0", "1-0", "m2"],
      reply: ["1-0", 0, 0],
      after: { log: { entries: logged(1, 2).map((entry) => [...entry.slice(0, -1), "x".repeat(600_000)]) } }
    },
    {
      does: "finds nothing where there is no log",
      keys: ["log"],
      args: ["1-0", "1-0", "m1"],
      reply: ["1-0", 1, 1],
      after: {}
    }
  ],
  attachGroup: [
    {
      does: "creates the group at its floor, or at the beginning of a retry stream",
      seed: [["xadd", "$log", "5-0", "i", "a", "p", "x"], ["hset", "$floors", "ch", "3-0"]],
      keys: attachKeys(["log", "r", "b"], ["other", "r", "b"], ["retry", "retry", "retry"]),
      args: ["g", "0", "[]", "ch", "other", "\nch"],
      reply: [[1, 2, 3], []],
      after: {
        counts: { "s\ng\nch": "0", "s\ng\nother": "0" },
        floors: { ch: "3-0" },
        log: { entries: [["5-0", "i", "a", "p", "x"]], groups: { g: { at: "3-0", consumers: 0, pending: [] } } },
        other: { entries: [], groups: { g: { at: "0-0", consumers: 0, pending: [] } } },
        retry: { entries: [], groups: { g: { at: "0-0", consumers: 0, pending: [] } } }
      },
      again: { reply: [[], []] }
    },
    {
      does:
        "begins where all other groups have acknowledged everything, with none before one that has not come to the channel yet",
      seed: [
        ...[1, 2, 3, 4].map((n): Array<Arg> => ["xadd", "$log", `${n}-0`, "p", "x"]),
        ["xgroup", "create", "$log", "h", "0"],
        ["xgroup", "create", "$log", "i", "3-0"],
        ["xreadgroup", "group", "h", "c", "count", 3, "streams", "$log", ">"],
        ["xack", "$log", "h", "1-0", "3-0"],
        ["xadd", "$other", "7-0", "p", "x"],
        ["xgroup", "create", "$other", "h", "7-0"]
      ],
      keys: attachKeys(["log", "r", "b"], ["other", "r", "b"]),
      args: ["g", "settled", "[]", "ch\nh\ni", "other\nh\nk"],
      reply: [[1, 2], []],
      after: {
        counts: { "s\ng\nch": "1", "s\ng\nother": "0" },
        floors: { ch: "1-18446744073709551615" },
        log: {
          entries: [1, 2, 3, 4].map((n) => [`${n}-0`, "p", "x"]),
          groups: {
            g: { at: "1-18446744073709551615", consumers: 0, pending: [] },
            h: { at: "3-0", consumers: 1, pending: [["2-0", "c", 1, "fresh"]] },
            i: { at: "3-0", consumers: 0, pending: [] }
          }
        },
        other: {
          entries: [["7-0", "p", "x"]],
          groups: {
            g: { at: "0-0", consumers: 0, pending: [] },
            h: { at: "7-0", consumers: 0, pending: [] }
          }
        }
      },
      again: { reply: [[], []] }
    },
    {
      does: "does not count large messages before a position: that would bring all of them into the script",
      seed: [1, 2, 3, 4].map((n) => ["xadd", "$log", `${n}-0`, "p", "x".repeat(200_000)]),
      keys: attachKeys(["log", "retry", "bodies"]),
      args: ["g", "2-0", "[]", "ch"],
      reply: [[1], []],
      after: {
        floors: { ch: "2-0" },
        log: {
          entries: [1, 2, 3, 4].map((n) => [`${n}-0`, "p", "x".repeat(200_000)]),
          groups: { g: { at: "2-0", consumers: 0, pending: [] } }
        }
      },
      again: { reply: [[], []] }
    },
    {
      does: "begins an account anew: what was there before, less what the group has of an earlier life",
      seed: [
        ...[1, 2, 3, 4, 5].map((n): Array<Arg> => ["xadd", "$log", `${n}-0`, "p", "x"]),
        ["xtrim", "$log", "minid", "2-0"],
        ["hset", "$counts", "a\ng\nch", 7, "d\ng\nch\nterm", 1, "d\ng\nch\nexpired", 1, "d\nh\nch\nterm", 1],
        ["xadd", "$retry", "9-0", "p", "x"],
        ["hset", "$bodies", "w", "x"]
      ],
      keys: attachKeys(["log", "retry", "bodies"]),
      args: ["g", "3-0", "[]", "ch"],
      reply: [[1], []],
      after: {
        bodies: { w: "x" },
        counts: { "d\ng\nch\nexpired": "1", "d\ng\nch\nterm": "1", "d\nh\nch\nterm": "1", "s\ng\nch": "-1" },
        floors: { ch: "3-0" },
        log: {
          entries: [2, 3, 4, 5].map((n) => [`${n}-0`, "p", "x"]),
          groups: { g: { at: "3-0", consumers: 0, pending: [] } }
        },
        retry: { entries: [["9-0", "p", "x"]] }
      },
      again: { reply: [[], []] }
    },
    {
      does: "takes what is in a retry stream for not settled, and what is not for settled",
      seed: [
        ...[1, 2, 3].map((n): Array<Arg> => ["xadd", "$retry", `${n}-0`, "p", "x"]),
        ["xtrim", "$retry", "minid", "3-0"],
        ["hset", "$counts", "z\ng\nch", 3, "z\ng\nold", 21]
      ],
      keys: attachKeys(["retry", "retry", "retry"], ["gone", "gone", "gone"]),
      args: ["g", "0", "[]", "\nch", "\nold"],
      reply: [[1, 2], []],
      after: {
        counts: { "z\ng\nch": "2" },
        retry: { entries: [["3-0", "p", "x"]], groups: { g: { at: "0-0", consumers: 0, pending: [] } } },
        gone: { entries: [], groups: { g: { at: "0-0", consumers: 0, pending: [] } } }
      },
      again: { reply: [[], []] }
    },
    {
      does: "does not count where the position is still to come",
      seed: [["xadd", "$log", "5-0", "i", "a", "p", "x"]],
      keys: attachKeys(["log", "r", "b"]),
      args: ["g", "9-18446744073709551615", "[]", "ch"],
      reply: [[1], []],
      after: {
        floors: { ch: "9-18446744073709551615" },
        log: {
          entries: [["5-0", "i", "a", "p", "x"]],
          groups: { g: { at: "9-18446744073709551615", consumers: 0, pending: [] } }
        }
      },
      again: { reply: [[], []] }
    },
    {
      does: "remembers where it began",
      seed: [["xadd", "$log", "5-0", "i", "a", "p", "x"]],
      keys: attachKeys(["log", "r", "b"]),
      args: ["g", "$", "[]", "ch"],
      reply: [[1], []],
      after: {
        counts: { "s\ng\nch": "1" },
        floors: { ch: "5-0" },
        log: { entries: [["5-0", "i", "a", "p", "x"]], groups: { g: { at: "5-0", consumers: 0, pending: [] } } }
      },
      again: { reply: [[], []] }
    },
    {
      does: "begins where the last group had come that was removed, where there is no other",
      seed: [
        ...[1, 2, 3].map((n): Array<Arg> => ["xadd", "$log", `${n}-0`, "p", "x"]),
        ["hset", "$settled", "ch", "2-0"]
      ],
      keys: attachKeys(["log", "retry", "bodies"]),
      args: ["g", "settled", "[]", "ch"],
      reply: [[1], []],
      after: {
        counts: { "s\ng\nch": "2" },
        floors: { ch: "2-0" },
        log: {
          entries: [1, 2, 3].map((n) => [`${n}-0`, "p", "x"]),
          groups: { g: { at: "2-0", consumers: 0, pending: [] } }
        },
        settled: { ch: "2-0" }
      },
      again: { reply: [[], []] }
    },
    {
      does: "creates nothing when the group was removed since",
      seed: [["xadd", "$log", "5-0", "p", "x"], ["hset", "$removed", "a.*", "7"]],
      keys: attachKeys(["log", "retry", "bodies"]),
      args: ["g", "0", JSON.stringify([["a.*", "6"]]), "ch"],
      reply: null,
      after: { log: { entries: [["5-0", "p", "x"]] }, removed: { "a.*": "7" } },
      again: { reply: null }
    }
  ],
  heartbeat: [{
    does: "notes who lives and names who is silent",
    seed: [["zadd", "$members", 1, "old", far, "ahead"]],
    keys: ["members"],
    args: ["c", 1_000],
    reply: ["old"],
    after: { members: { old: 1, ahead: "far", c: "now" } }
  }],
  createChannel: [
    {
      does: "creates log and entry, and begins the version with the time",
      keys: ["meta", "channels", "log"],
      args: ["ch", "", "events", 1000],
      reply: ["0-0", "", 0],
      after: { channels: { ch: "" }, log: { entries: [] }, meta: { v: "time" } }
    },
    ...([
      ["the only definition there is", [], "5 - -", "{\"maxLength\":5}", 1],
      ["one without limits, where there were some", [`${past} 5 - -`], "- - -", "", 1],
      [
        "the more generous of two",
        [`${far} 5 2-0 7`],
        "6 3-1 6",
        "{\"maxLength\":6,\"minId\":\"2-0\",\"maxAgeMillis\":7}",
        2
      ],
      ["none where one has none", [`${far} 5 - -`, `${far} - - -`], "6 - -", "", 3],
      ["none where two have nothing in common", [`${far} 5 - -`], "- 3-1 -", "", 2],
      [
        "what is left when another was not heard of",
        [`${far} 5 2 -`, `${past} - - -`],
        "4 1-5 -",
        "{\"maxLength\":5,\"minId\":\"1-5\"}",
        2
      ],
      ["what it can read", ["no", `${far} 9`, `${far} 5 - -`], "4 - -", "{\"maxLength\":5}", 2]
    ] as const).map(([what, before, definition, limits, count]): Case => ({
      does: `decides on the limits: ${what}`,
      seed: [
        ["hset", "$meta", "v", 7],
        ["hset", "$channels", "ch", "{\"maxLength\":1}"],
        ["hset", "$definitions", "ch", before.join("\n")],
        ["xadd", "$log", "5-0", "i", "a", "p", "x"]
      ],
      keys: ["meta", "channels", "log", "definitions"],
      args: ["ch", definition, "events", 1000],
      reply: ["5-0", limits, count],
      after: {
        channels: { ch: limits },
        definitions: {
          ch: [
            `now ${definition}`,
            ...before.filter((line) => /^\d+ \S+ \S+ \S+$/.test(line) && !line.startsWith(String(past))).map((line) =>
              line.replace(String(far), "far")
            )
          ].join("\n")
        },
        log: { entries: [["5-0", "i", "a", "p", "x"]] },
        meta: { v: "8" }
      }
    })),
    {
      does: "leaves them to those who know them",
      seed: [["hset", "$meta", "v", 7], ["hset", "$channels", "ch", "{\"maxLength\":1}"], [
        "xadd",
        "$log",
        "5-0",
        "i",
        "a",
        "p",
        "x"
      ]],
      keys: ["meta", "channels", "log"],
      args: ["ch", "", "events", 1000],
      reply: ["5-0", "{\"maxLength\":1}", 0],
      after: {
        channels: { ch: "{\"maxLength\":1}" },
        log: { entries: [["5-0", "i", "a", "p", "x"]] },
        meta: { v: "7" }
      }
    }
  ],
  trimToLimits: [
    ...([["length", "{\"maxLength\":1}"], ["minimal position", "{\"minId\":\"3-0\"}"]] as const).map((
      [what, limits]
    ): Case => ({
      does: `removes what is beyond the ${what} that counts now`,
      seed: [["hset", "$channels", "ch", limits], ...[1, 2, 3].map(large)],
      keys: ["channels", "log"],
      args: ["ch", 1000],
      reply: 2,
      after: { channels: { ch: limits }, log: { entries: [["3-0", "i", "m3", "p", "x".repeat(5_000)]] } },
      again: { reply: 0 }
    })),
    ...["{", "5", "{\"maxLength\":\"0\"}", "{\"maxLength\":-1}", "{\"minId\":\"x\"}", "{\"minId\":9}"].map((
      limits
    ): Case => ({
      does: `removes nothing by what it cannot read: ${limits}`,
      seed: [["hset", "$channels", "ch", limits], large(1)],
      keys: ["channels", "log"],
      args: ["ch", 1000],
      reply: 0,
      after: { channels: { ch: limits }, log: { entries: [["1-0", "i", "m1", "p", "x".repeat(5_000)]] } }
    }))
  ],
  leaveGroup: [{
    does: "removes the consumer where it has nothing pending",
    seed: [
      ...handedOut("c"),
      ["xgroup", "create", "$other", "g", "0", "mkstream"],
      ["xgroup", "createconsumer", "$other", "g", "c"]
    ],
    keys: ["log", "other", "missing"],
    args: ["g", "c"],
    reply: 1,
    after: {
      log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [["1-0", "c", 1, "old"]] } } },
      other: { entries: [], groups: { g: { at: "0-0", consumers: 0, pending: [] } } }
    }
  }],
  findLostReplies: [{
    does: "gives again what is its own, as often as it likes",
    seed: [
      ...handedOut("c", "other", "c", "c"),
      ["xdel", "$log", "3-0"],
      ["hset", "$trials", "l1-0", "1 1", "l2-0", "1 1", "r4-0", "1 1"]
    ],
    keys: ["log", "trials"],
    args: ["g", "c", "l", "1-0", "2-0", "3-0", "4-0", "5-0"],
    reply: [["1-0", ["i", "m1", "p", "x"], 1, "1 1"], ["4-0", ["i", "m4", "p", "x"], 1, ""]],
    after: {
      trials: { "l1-0": "1 1", "l2-0": "1 1", "r4-0": "1 1" },
      log: {
        entries: logged(1, 2, 4),
        groups: {
          g: {
            at: "4-0",
            consumers: 2,
            pending: [["1-0", "c", 1, "fresh"], ["2-0", "other", 1, "old"], ["4-0", "c", 1, "fresh"]]
          }
        }
      }
    }
  }],
  shareSettings: [
    {
      does: "tells what it is set to, forgets what is over, and gives what counts",
      seed: [["zadd", "$settings", 1, "over", far, "other"]],
      keys: ["settings"],
      args: ["mine", 60_000],
      reply: ["mine", "other"],
      after: { settings: { mine: "now+60s", other: "far" }, "settings ends": "just after far" }
    },
    {
      does: "ends nothing sooner that others have told",
      seed: [["zadd", "$settings", far, "mine"]],
      keys: ["settings"],
      args: ["mine", 60_000],
      reply: ["mine"],
      after: { settings: { mine: "far" }, "settings ends": "just after far" }
    },
    {
      does: "changes nothing when the key holds something else",
      seed: [["set", "$settings", "x"]],
      keys: ["settings"],
      args: ["mine", 60_000],
      reply: "WRONGTYPE settings is a string, expected a zset",
      after: { settings: ["x", "stays"] }
    }
  ],
  beginTrial: [
    {
      does: "notes what it holds and starts the lease anew; refuses what is another hand-out, another's or gone",
      seed: [
        ...handedOut("c", "other", "c", "c", "c"),
        ["xdel", "$log", "4-0"],
        // Begun once and lost; begun twice, of which one was taken back.
        ["hset", "$trials", "l1-0", "1 0", "l5-0", "nonsense", "r1-0", "3 1"]
      ],
      keys: ["log", "trials"],
      args: ["g", "c", "l", "1-0", 1, "2-0", 1, "3-0", 2, "4-0", 1, "5-0", 1, "6-0", 1],
      reply: ["2-0", "3-0", "4-0", "6-0"],
      after: {
        trials: { "l1-0": "2 1", "l5-0": "1 1", "r1-0": "3 1" },
        log: {
          entries: logged(1, 2, 3, 5),
          groups: {
            g: {
              at: "5-0",
              consumers: 2,
              pending: [
                ["1-0", "c", 1, "fresh"],
                ["2-0", "other", 1, "old"],
                ["3-0", "c", 1, "old"],
                ["5-0", "c", 1, "fresh"]
              ]
            }
          }
        }
      }
    },
    {
      does: "changes nothing when a key holds something else",
      seed: [...handedOut("c"), ["set", "$trials", "x"]],
      keys: ["log", "trials"],
      args: ["g", "c", "l", "1-0", 1],
      reply: "WRONGTYPE trials is a string, expected a hash",
      after: {
        trials: ["x", "stays"],
        log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [["1-0", "c", 1, "old"]] } } }
      }
    }
  ],
  endTrial: [
    {
      does: "takes back what this hand-out has begun, and not what others had",
      seed: [["hset", "$trials", "l1-0", "2 3", "l2-0", "2 3"]],
      keys: ["trials"],
      args: ["l1-0", 3],
      reply: 1,
      after: { trials: { "l1-0": "1 0", "l2-0": "2 3" } },
      again: { reply: 0 }
    },
    {
      does: "leaves nothing where nothing is left",
      seed: [["hset", "$trials", "l1-0", "1 3"]],
      keys: ["trials"],
      args: ["l1-0", 3],
      reply: 1,
      after: {},
      again: { reply: 0 }
    },
    {
      does: "does nothing for another hand-out",
      seed: [["hset", "$trials", "l1-0", "1 3"]],
      keys: ["trials"],
      args: ["l1-0", 2],
      reply: 0,
      after: { trials: { "l1-0": "1 3" } }
    }
  ],
  registerGroup: [{
    does: "registers what is new and raises the version once",
    seed: [["hset", "$meta", "v", 3], ["hset", "$groups", "g\na", ""]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["[]", "g", "", "g\na", "g\nb", "g\nc"],
    reply: [2, ""],
    after: { groups: { "g\na": "", "g\nb": "", "g\nc": "" }, meta: { v: "4" } },
    again: { reply: [0, ""] }
  }, {
    does: "registers nothing when the group was removed since",
    seed: [["hset", "$meta", "v", 3], ["hset", "$removed", "a", "2", "b", "3"]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: [JSON.stringify([["a", "2"], ["b", "2"]]), "g", "", "g\na", "g\nb"],
    reply: [-1, ""],
    after: { meta: { v: "3" }, removed: { a: "2", b: "3" } },
    again: { reply: [-1, ""] }
  }, {
    does: "registers a group that knows of its removals, and one whose removals are forgotten",
    seed: [["hset", "$meta", "v", 3], ["hset", "$removed", "a", "2"]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: [JSON.stringify([["a", "2"], ["b", "1"]]), "g", "", "g\na", "g\nb"],
    reply: [2, ""],
    after: { groups: { "g\na": "", "g\nb": "" }, meta: { v: "4" }, removed: { a: "2" } },
    again: { reply: [0, ""] }
  }, {
    does: "records how the group treats ordering keys, once",
    seed: [["hset", "$meta", "v", 3]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["[]", "g", "block", "g\na"],
    reply: [1, "block"],
    after: { groups: { "g\na": "" }, meta: { v: "4" }, orderings: { g: "block" } },
    again: { reply: [0, "block"] }
  }, {
    does: "refuses another treatment of ordering keys, and tells the one that is decided",
    seed: [["hset", "$meta", "v", 3], ["hset", "$orderings", "g", "none"]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["[]", "g", "block", "g\na"],
    reply: [-2, "none"],
    after: { meta: { v: "3" }, orderings: { g: "none" } }
  }, {
    does: "tells what is decided where nothing is asked",
    seed: [["hset", "$meta", "v", 3], ["hset", "$orderings", "g", "block"]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["[]", "g", "", "g\na"],
    reply: [1, "block"],
    after: { groups: { "g\na": "" }, meta: { v: "4" }, orderings: { g: "block" } },
    again: { reply: [0, "block"] }
  }],
  renew: [{
    does: "tells whose entry is gone from the stream, once",
    seed: [...handedOut("c", "c"), ["xtrim", "$log", "maxlen", 1]],
    keys: ["log"],
    args: ["g", "c", "1-0", 1, "2-0", 1],
    reply: [[], ["1-0"]],
    after: {
      log: {
        entries: logged(2),
        groups: { g: { at: "2-0", consumers: 1, pending: [["2-0", "c", 1, "fresh"]] } }
      }
    },
    again: { reply: [["1-0"], []] }
  }, {
    does: "starts the lease anew of what it holds, and of nothing else",
    seed: handedOut("c", "other", "c"),
    keys: ["log"],
    args: ["g", "c", "1-0", 1, "2-0", 1, "3-0", 2, "4-0", 1],
    reply: [["2-0", "3-0", "4-0"], []],
    after: {
      log: {
        entries: logged(1, 2, 3),
        groups: {
          g: {
            at: "3-0",
            consumers: 2,
            pending: [["1-0", "c", 1, "fresh"], ["2-0", "other", 1, "old"], ["3-0", "c", 1, "old"]]
          }
        }
      }
    }
  }],
  settle: [
    {
      does: "settles each as asked, refuses what is another hand-out or another's",
      seed: [...handedOut("c", "c", "c", "c", "c", "other"), ["hset", "$meta", "v", 1], [
        "hset",
        "$counts",
        // Of a retry stream that was deleted.
        "z\ng\nch",
        7
      ]],
      keys: settleKeys,
      args: [
        ...settleArgs,
        ...[
          ["1-0", 1, "ack", "", "", "", "", ""],
          ["2-0", 1, "ready+", "", "two\nx", "", "", ""],
          ["3-0", 1, "wait", "60000\ng\nch\n3-0", "three\nx", "", "", ""],
          ["4-0", 1, "dead", "g\nch\nterm", "four\nx", "", "", ""],
          ["5-0", 2, "dead", "", "five\nx", "", "", ""],
          ["6-0", 1, "ready", "", "six\nx", "", "", ""]
        ].flat()
      ],
      reply: ["5-0", "6-0"],
      after: {
        bodies: { "3-0": "three\nx" },
        counts: {
          "a\ng\nch": "1",
          "b\ng\nch": "1",
          "d\ng\nch\nterm": "1",
          "f\ng\nch": "2",
          "r\ng\nch": "1"
        },
        dead: { entries: [["new", "k", "g\nch\nterm", "b", "four\nx"]] },
        log: {
          entries: logged(1, 2, 3, 4, 5, 6),
          groups: { g: { at: "6-0", consumers: 2, pending: [["5-0", "c", 1, "old"], ["6-0", "other", 1, "old"]] } }
        },
        meta: { v: "2" },
        retries: ["ch"],
        retry: { entries: [["new", "b", "two\nx"]], groups: { g: { at: "0-0", consumers: 0, pending: [] } } },
        waiting: { "g\nch\n3-0": "now+60s" }
      },
      again: { reply: ["1-0", "2-0", "3-0", "4-0", "5-0", "6-0"] }
    },
    ...(["log", "retry"] as const).map((source): Case => ({
      does: `forgets the trials of what it settles of the ${source}, and of nothing else`,
      seed: [
        ...handedOut("c", "other").map((command) => command.map((arg) => arg === "$log" ? `$${source}` : arg)),
        ["hset", "$trials", "l1-0", "1 1", "l2-0", "1 1", "r1-0", "1 1", "r2-0", "1 1"]
      ],
      keys: [source, ...settleKeys.slice(1)],
      args: [...settleArgs, "1-0", 1, "ack", "", "", "", "", "", "2-0", 1, "ack", "", "", "", "", ""],
      reply: ["2-0"],
      after: {
        counts: { "a\ng\nch": "1", ...(source === "retry" ? { "z\ng\nch": "1" } : {}) },
        [source]: {
          entries: logged(1, 2),
          groups: { g: { at: "2-0", consumers: 2, pending: [["2-0", "other", 1, "old"]] } }
        },
        trials: source === "log"
          ? { "l2-0": "1 1", "r1-0": "1 1", "r2-0": "1 1" }
          : { "l1-0": "1 1", "l2-0": "1 1", "r2-0": "1 1" }
      },
      again: { reply: ["1-0", "2-0"] }
    })),
    {
      does: "changes nothing when a key holds something else",
      seed: [...handedOut("c"), ["set", "$dead", "mine"]],
      keys: settleKeys,
      args: [...settleArgs, "1-0", 1, "dead", "", "one\nx", "", "", ""],
      reply: "WRONGTYPE dead is a string, expected a stream",
      after: {
        dead: ["mine", "stays"],
        log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [["1-0", "c", 1, "old"]] } } }
      }
    },
    ...(["dead", "retry"] as const).map((target): Case => ({
      does: `keeps what cannot go to the ${target} stream, which has no position left`,
      seed: [...handedOut("c", "c"), ["xadd", `$${target}`, lastPosition, "a", "b"]],
      keys: settleKeys,
      args: [
        settleArgs,
        ["1-0", 1, "ack", "", "", "", "", ""],
        ["2-0", 1, target === "dead" ? "dead" : "ready+", "", "two\nx", "", "", ""]
      ].flat(),
      reply: `ERR ${target} has no position left`,
      after: {
        [target]: { entries: [[lastPosition, "a", "b"]] },
        log: {
          entries: logged(1, 2),
          groups: { g: { at: "2-0", consumers: 1, pending: [["1-0", "c", 1, "old"], ["2-0", "c", 1, "old"]] } }
        }
      }
    }))
  ],
  listSources: [
    {
      does: "says only that nothing has changed",
      seed: [["hset", "$meta", "v", 3], ["hset", "$channels", "a", ""], ["hset", "$groups", "g\na", ""]],
      keys: ["meta", "channels", "groups", "retries", "removed", "paused"],
      args: ["3", 1, 0, "g\na"],
      reply: ["3", []],
      after: { channels: { a: "" }, groups: { "g\na": "" }, meta: { v: "3" } }
    },
    {
      does: "lists channels, retry streams, what is registered, and what was removed",
      seed: [
        ["hset", "$meta", "v", 3],
        ["hset", "$channels", "a", ""],
        ["hset", "$groups", "g\na", ""],
        ["sadd", "$retries", "a"],
        ["hset", "$removed", "b", "2"]
      ],
      keys: ["meta", "channels", "groups", "retries", "removed", "paused"],
      args: ["2", 1, 1, "g\na", "g\nb"],
      reply: ["3", [], ["a"], ["a"], [1, 0], ["", "2"]],
      after: { channels: { a: "" }, groups: { "g\na": "" }, meta: { v: "3" }, removed: { b: "2" }, retries: ["a"] }
    },
    {
      does: "tells the pauses of the group that are in force, and of no other group",
      seed: [
        ["hset", "$meta", "v", 3],
        ["hset", "$channels", "a", ""],
        ["hset", "$groups", "g\na", ""],
        ["hset", "$paused", "g\n**", `${past} - {}`, "g\na", `1 ${past} {}`, "h\na", "1 - {}", "g\nb", "strange"]
      ],
      keys: ["meta", "channels", "groups", "retries", "removed", "paused"],
      args: ["3", 1, 0, "g\na"],
      reply: ["3", ["**", "past - {}", -1]],
      after: {
        channels: { a: "" },
        groups: { "g\na": "" },
        meta: { v: "3" },
        paused: { "g\n**": "past - {}", "g\na": "1 past {}", "h\na": "1 - {}", "g\nb": "strange" }
      }
    },
    ...([
      ["a channel", [2, 0], []],
      ["a retry stream", [1, 1], []],
      ["a registration", [1, 0], ["g\nb"]]
    ] as const).map(([what, counts, more]): Case => ({
      does: `lists everything when ${what} was removed behind the version`,
      seed: [["hset", "$meta", "v", 3], ["hset", "$channels", "a", ""], ["hset", "$groups", "g\na", ""]],
      keys: ["meta", "channels", "groups", "retries", "removed", "paused"],
      args: ["3", ...counts, "g\na", ...more],
      reply: ["3", [], ["a"], [], [1, ...more.map(() => 0)], ["", ...more.map(() => "")]],
      after: { channels: { a: "" }, groups: { "g\na": "" }, meta: { v: "3" } }
    }))
  ],
  pauseGroup: [
    {
      does: "stores a pause on each pattern, and removes those that are over; the same call again is one pause",
      seed: [["hset", "$paused", "h\na", `1 ${past} {}`, "h\nb", "1 - {}"]],
      keys: ["paused"],
      args: ["g", far, "{\"id\":\"i\"}", 0, 10, "events", "a", "b"],
      reply: 1,
      after: {
        paused: { "g\na": "now far {\"id\":\"i\"}", "g\nb": "now far {\"id\":\"i\"}", "h\nb": "1 - {}" }
      }
    },
    {
      does: "replaces a pause of the same pattern",
      seed: [["hset", "$paused", "g\na", "1 - {\"id\":\"old\"}"]],
      keys: ["paused"],
      args: ["g", "-", "{\"id\":\"new\"}", 0, 10, "events", "a"],
      reply: 1,
      after: { paused: { "g\na": "now - {\"id\":\"new\"}" } }
    },
    {
      does: "leaves a pause that is there, if it is told so",
      seed: [["hset", "$paused", "g\na", "1 - {\"id\":\"old\"}"]],
      keys: ["paused"],
      args: ["g", "-", "{\"id\":\"new\"}", 1, 10, "events", "a"],
      reply: 1,
      after: { paused: { "g\na": "1 - {\"id\":\"old\"}" } }
    },
    {
      does: "does nothing when the time is over",
      keys: ["paused"],
      args: ["g", past, "{}", 0, 10, "events", "a"],
      reply: 0,
      after: {}
    },
    {
      does: "refuses more pauses than may be",
      seed: [["hset", "$paused", "h\na", "1 - {}"]],
      keys: ["paused"],
      args: ["g", "-", "{}", 0, 2, "events", "a", "b"],
      reply: -1,
      after: { paused: { "h\na": "1 - {}" } }
    }
  ],
  resumeGroup: [
    {
      does: "ends the pauses of these patterns, and begins the count of dead letters anew",
      seed: [
        ["hset", "$paused", "g\na", "1 - {}", "g\nb", `1 ${far} {}`, "h\na", "1 - {}"],
        ["zadd", "$storm", 1, "x"]
      ],
      keys: ["paused", "storm"],
      args: ["g", "events", "a", "c"],
      reply: ["a", "1 - {}", -1],
      after: { paused: { "g\nb": "1 far {}", "h\na": "1 - {}" } },
      again: { reply: [] }
    },
    {
      does: "ends all pauses of the group",
      seed: [["hset", "$paused", "g\na", "1 - {}", "g\n**", "1 - {}", "h\na", "1 - {}"]],
      keys: ["paused", "storm"],
      args: ["g", "events"],
      reply: ["a", "1 - {}", -1, "**", "1 - {}", -1],
      after: { paused: { "h\na": "1 - {}" } },
      again: { reply: [] }
    }
  ],
  keepPauses: [
    {
      does: "records what a member keeps",
      seed: [["hset", "$resting", "c", "old", "d", "x"]],
      keys: ["resting"],
      args: ["c", "one two"],
      reply: 1,
      after: { resting: { c: "one two", d: "x" } }
    },
    {
      does: "leaves nothing of a member that keeps none",
      seed: [["hset", "$resting", "c", "old"]],
      keys: ["resting"],
      args: ["c", ""],
      reply: 1,
      after: {}
    }
  ],
  countLetters: [
    {
      does: "counts letters within the span, each once",
      seed: [["zadd", "$storm", past, "old", recent, "a", recent, "b"]],
      keys: ["storm"],
      args: [600_000, 5, "a", "c"],
      reply: 3,
      after: { storm: { a: "recent", b: "recent", c: "now" }, "storm ends": "now+600s" }
    },
    {
      does: "keeps no more than are counted",
      seed: [["zadd", "$storm", recent, "a", recent, "b"]],
      keys: ["storm"],
      args: [600_000, 2, "c"],
      reply: 2,
      after: { storm: { b: "recent", c: "now" }, "storm ends": "now+600s" }
    }
  ],
  unregisterGroup: [{
    does: "ends the registration, and notes with which version, for a time",
    seed: [["hset", "$meta", "v", 3], ["hset", "$groups", "g\na", "", "g\nb", "", "h\na", ""], [
      "hset",
      "$orderings",
      "g",
      "block"
    ]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["g", 60_000, "events", "a", "c"],
    reply: 1,
    after: {
      groups: { "g\nb": "", "h\na": "" },
      meta: { v: "4" },
      orderings: { g: "block" },
      removed: { a: "4" },
      "removed ends": "now+60s"
    },
    again: { reply: 0 }
  }, {
    does: "ends with the last registration what was decided about ordering keys",
    seed: [["hset", "$meta", "v", 3], ["hset", "$groups", "g\na", "", "h\na", ""], [
      "hset",
      "$orderings",
      "g",
      "block",
      "h",
      "none"
    ]],
    keys: ["meta", "groups", "removed", "orderings"],
    args: ["g", 60_000, "events", "a"],
    reply: 1,
    after: {
      groups: { "h\na": "" },
      meta: { v: "4" },
      orderings: { h: "none" },
      removed: { a: "4" },
      "removed ends": "now+60s"
    },
    again: { reply: 0 }
  }],
  confirmable: [{
    does: "writes where messages are, also when the same was written before, and changes none of them",
    seed: [["xadd", "$log", "1-0", "p", "x"], ["hset", "$meta", "v", 3]],
    keys: ["meta", "log"],
    args: [],
    reply: 1,
    after: { log: { entries: [["1-0", "p", "x"]] }, meta: { v: "3", touched: "1" } }
  }],
  trim: [
    {
      does: "removes what all groups have acknowledged, and notes how far each has come",
      seed: [
        ...handedOut("c", "c", "c"),
        ["xack", "$log", "g", "1-0", "3-0"],
        ["xgroup", "create", "$log", "h", "3-0"]
      ],
      keys: ["meta", "log", "floors:g", "floors:h"],
      args: trimArgs({}, "g", "h"),
      reply: [1, 0],
      after: {
        "floors:g": { ch: "1-18446744073709551615" },
        "floors:h": { ch: "3-0" },
        log: {
          entries: logged(2, 3),
          groups: {
            g: { at: "3-0", consumers: 1, pending: [["2-0", "c", 1, "old"]] },
            h: { at: "3-0", consumers: 0, pending: [] }
          }
        }
      },
      again: { reply: [0, 0] }
    },
    {
      does: "removes nothing when the version is another",
      seed: [["hset", "$meta", "v", 3], ...handedOut("c"), ["xack", "$log", "g", "1-0"]],
      keys: ["meta", "log", "floors:g"],
      args: trimArgs({ version: "2" }, "g"),
      reply: [-1, 1],
      after: { log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [] } } }, meta: { v: "3" } }
    },
    {
      does: "removes nothing while an expected group is missing, or there is none",
      seed: [...handedOut("c"), ["xack", "$log", "g", "1-0"]],
      keys: ["meta", "log", "floors:g", "floors:late"],
      args: trimArgs({}, "g", "late"),
      reply: [0, 0],
      after: {
        "floors:g": { ch: "1-0" },
        log: { entries: logged(1), groups: { g: { at: "1-0", consumers: 1, pending: [] } } }
      }
    },
    {
      does: "keeps what is young, and says to come again",
      seed: [
        ["xgroup", "create", "$log", "g", "0", "mkstream"],
        ["xadd", "$log", "1-0", "p", "x"],
        ["xadd", "$log", "*", "p", "x"],
        ["xgroup", "setid", "$log", "g", "$"]
      ],
      keys: ["meta", "log", "floors:g"],
      args: trimArgs({ grace: 60_000 }, "g"),
      reply: [1, 1],
      after: {
        "floors:g": { ch: "new" },
        log: { entries: [["new", "p", "x"]], groups: { g: { at: "new", consumers: 0, pending: [] } } }
      },
      again: { reply: [0, 1] }
    },
    {
      does: "removes below a position and beyond an age whatever is pending, and consumers that were abandoned",
      seed: [
        ...handedOut("c", "c", "c"),
        ["xadd", "$log", "*", "p", "x"],
        ["xgroup", "createconsumer", "$log", "g", "abandoned"]
      ],
      keys: ["meta", "log", "floors:g"],
      args: trimArgs({ least: "3-0", age: 60_000, abandoned: -1 }, "g"),
      reply: [3, 3],
      after: {
        "floors:g": { ch: "0-18446744073709551615" },
        log: {
          entries: [["new", "p", "x"]],
          groups: {
            g: {
              at: "3-0",
              consumers: 1,
              pending: [["1-0", "c", 1, "old"], ["2-0", "c", 1, "old"], ["3-0", "c", 1, "old"]]
            }
          }
        }
      },
      again: { reply: [0, 3] }
    },
    {
      does: "passes over a stream that is not there",
      keys: ["meta", "log"],
      args: trimArgs({}),
      reply: [0, 0],
      after: {}
    }
  ]
}

const names = namesOf("groups", "publish", "member", "recurring", "upkeep")
/** These have their cases in `scheduling.test.ts`, `once.test.ts` and `ordering.test.ts`: what they do depends on what was done before. */
const elsewhere = new Set([
  "cancel",
  "removeRecurring",
  "promote",
  "upsertRecurring",
  "reschedule",
  "schedule",
  "listScheduled",
  "publishTicks",
  "dueTicks",
  "beginOnce",
  "commit",
  "ackOnce",
  "enter",
  "leave",
  "takeOver",
  "deduplicate",
  "sweepOnce"
])

describe("scripts on data", () => {
  it("every script has its cases", () => {
    assert.deepStrictEqual([...Object.keys(cases), ...elsewhere].toSorted(), names)
  })

  for (const name of Object.keys(cases)) {
    describe(name, () => {
      for (const one of cases[name] ?? []) it(one.does, run(scriptNamed(name), one))
    })
  }
})
