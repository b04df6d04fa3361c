/**
 * The scripts of the checks: a look changes nothing, a repair changes what the case says, and after it there is nothing to repair. `$name`
 * stands for the key of that name in the namespace of the case.
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
  readonly seed: ReadonlyArray<ReadonlyArray<Arg>>
  readonly keys: ReadonlyArray<string>
  /** Behind the step. */
  readonly args: ReadonlyArray<Arg>
  /** 1 unless said otherwise; what answers otherwise is not repaired. */
  readonly reply?: number
  /** What is changed by mending; `undefined`: it is gone. */
  readonly repaired?: Keyspace.Contents
}

const client = new Redis({ host: "127.0.0.1", port: inject("redisPort"), protocol: 2 })
afterAll(() => client.disconnect())

const seeded = async (seed: Case["seed"]) => {
  const prefix = `{${freshPrefix()}}:`
  const { during, ...keyspace } = Keyspace.open(client, prefix)
  const keyed = (arg: Arg) => typeof arg === "string" && arg.startsWith("$") ? prefix + arg.slice(1) : arg
  await during(() => Promise.all(seed.map(([name, ...rest]) => client.call(String(name), rest.map(keyed)))))
  return {
    evaluate: (script: Script, keys: ReadonlyArray<string>, ...args: ReadonlyArray<Arg>) =>
      during(() => client.eval(script.lua, keys.length, ...keys.map((key) => prefix + key), ...args.map(String))),
    /** Streams by their positions and the number of pending entries. */
    dump: async () =>
      Keyspace.withStreams(await keyspace.dump(), ({ entries, groups = {} }) => ({
        entries: entries.map(([position]) => position),
        pending: Object.fromEntries(Object.entries(groups).map(([group, { pending }]) => [group, pending.length]))
      }))
  }
}

const without = (data: Keyspace.Contents): Keyspace.Contents =>
  Object.fromEntries(Object.entries(data).filter(([, value]) => value !== undefined))

const run = (script: Script, { args, keys, repaired, reply = 1, seed }: Case) => async () => {
  const { dump, evaluate } = await seeded(seed)
  const before = await dump()
  assert.strictEqual(await evaluate(script, keys, "check", ...args), reply)
  assert.deepStrictEqual(await dump(), before)
  assert.strictEqual(await evaluate(script, keys, "repair", ...args), reply)
  const after = without({ ...before, ...repaired })
  assert.deepStrictEqual(await dump(), after)
  assert.strictEqual(await evaluate(script, keys, "repair", ...args), repaired === undefined ? reply : 0)
  assert.deepStrictEqual(await dump(), after)
}

const none = async (script: Script, keys: ReadonlyArray<string>, args: ReadonlyArray<Arg>) => {
  const { dump, evaluate } = await seeded([])
  for (const step of ["check", "repair"]) assert.strictEqual(await evaluate(script, keys, step, ...args), 0)
  assert.deepStrictEqual(await dump(), {})
}

/** One message of group "g" in a stream, handed out. */
const leased = (stream: string): Case["seed"] => [
  ["xgroup", "create", stream, "g", "0", "mkstream"],
  ["xadd", stream, "1-0", "p", "x"],
  ["xreadgroup", "group", "g", "c", "streams", stream, ">"]
]

const member = "g\nch\n1-0"
const readyKeys = ["retry", "waiting", "bodies", "log", "counts"]
const readyArgs = (where: string) => [where, "g", "ch", "1-0", member, "1-0"]
const bodyKeys = ["waiting", "bodies", "retry", "retries", "meta", "groups", "counts"]

const cases: Readonly<Record<string, ReadonlyArray<Case>>> = {
  noExpiry: [
    {
      does: "ends what would never end",
      seed: [["set", "$key", "x"]],
      keys: ["key"],
      args: [60_000],
      repaired: { key: ["x", "now+60s"] }
    },
    { does: "ends it at once", seed: [["set", "$key", "x"]], keys: ["key"], args: [0], repaired: { key: undefined } },
    { does: "leaves what ends", seed: [["set", "$key", "x", "px", 9_000]], keys: ["key"], args: [0], reply: 0 }
  ],
  brokenChannel: [
    {
      does: "tells a log without a name",
      seed: [["xadd", "$log", "1-0", "p", "x"]],
      keys: ["meta", "channels", "log"],
      args: ["ch", "log", ""]
    },
    {
      does: "tells a name without a log",
      seed: [["hset", "$channels", "ch", ""]],
      keys: ["meta", "channels", "log"],
      args: ["ch", "name", ""]
    },
    {
      does: "removes limits that cannot be read",
      seed: [["hset", "$channels", "ch", "{"]],
      keys: ["meta", "channels", "log"],
      args: ["ch", "limits", "{"],
      repaired: { channels: { ch: "" }, meta: { v: "time" } }
    },
    {
      does: "leaves limits that were changed",
      seed: [["hset", "$channels", "ch", "{}"]],
      keys: ["meta", "channels", "log"],
      args: ["ch", "limits", "{"],
      reply: 0
    }
  ],
  unlistedRetries: [{
    does: "lists a retry stream",
    seed: [["xadd", "$retry", "1-0", "p", "x"]],
    keys: ["retry", "retries", "meta"],
    args: ["g", "ch", "events"],
    repaired: { retries: ["ch"], meta: { v: "time" } }
  }],
  timeWithoutBody: [
    {
      does: "removes a name without a body",
      seed: [["zadd", "$waiting", 1, member, 2, "other"], ["hset", "$bodies", "2-0", "x"]],
      keys: ["waiting", "bodies"],
      args: [member, "1-0"],
      repaired: { waiting: { other: 2 } }
    },
    {
      does: "leaves one with a body",
      seed: [["zadd", "$waiting", 1, member], ["hset", "$bodies", "1-0", "x"]],
      keys: ["waiting", "bodies"],
      args: [member, "1-0"],
      reply: 0
    },
    {
      does: "removes a strange name",
      seed: [["zadd", "$waiting", 1, "strange", 2, "other"]],
      keys: ["waiting", "waiting"],
      args: ["strange", ""],
      repaired: { waiting: { other: 2 } }
    }
  ],
  bodyWithoutTime: [
    {
      does: "makes a body due, and its group read it",
      seed: [["hset", "$bodies", "1-0", "x"], ["hset", "$groups", "g\nch", ""]],
      keys: bodyKeys,
      args: ["g", "ch", "1-0", "events"],
      repaired: {
        waiting: { [member]: "now" },
        retry: { entries: [], pending: { g: 0 } },
        retries: ["ch"],
        meta: { v: "time" }
      }
    },
    {
      does: "makes a scheduled one due",
      seed: [["hset", "$bodies", "a", "x"]],
      keys: bodyKeys,
      args: ["", "ch", "a", "events"],
      repaired: { waiting: { "\nch\na": "now" } }
    },
    {
      does: "leaves one of a group that is not registered",
      seed: [["hset", "$bodies", "1-0", "x"], ["hset", "$groups", "gg\nch", ""]],
      keys: bodyKeys,
      args: ["g", "ch", "1-0", "events"],
      reply: 2
    }
  ],
  waitingInTwoStates: [
    {
      does: "removes what waits where the log has it",
      seed: [...leased("$log"), ["zadd", "$waiting", 1, member], ["hset", "$bodies", "1-0", "x"]],
      keys: ["waiting", "bodies", "log"],
      args: ["g", member, "1-0"],
      repaired: { waiting: undefined, bodies: undefined }
    },
    {
      does: "leaves it where the log is done with it",
      seed: [
        ...leased("$log"),
        ["xack", "$log", "g", "1-0"],
        ["zadd", "$waiting", 1, member],
        ["hset", "$bodies", "1-0", "x"]
      ],
      keys: ["waiting", "bodies", "log"],
      args: ["g", member, "1-0"],
      reply: 0
    }
  ],
  readyInTwoStates: [
    {
      does: "removes what waits",
      seed: [...leased("$retry"), ["zadd", "$waiting", 1, member], ["hset", "$bodies", "1-0", "x"]],
      keys: readyKeys,
      args: readyArgs("waiting"),
      repaired: { waiting: undefined, bodies: undefined }
    },
    {
      does: "removes what nobody has yet",
      seed: [
        ...leased("$log"),
        ["xgroup", "create", "$retry", "g", "0", "mkstream"],
        ["xadd", "$retry", "1-0", "p", "x"]
      ],
      keys: readyKeys,
      args: readyArgs("log"),
      repaired: { retry: { entries: [], pending: { g: 0 } }, counts: { "z\ng\nch": "1" } }
    },
    {
      does: "leaves what somebody has",
      seed: [...leased("$log"), ...leased("$retry")],
      keys: readyKeys,
      args: readyArgs("log"),
      reply: 2
    }
  ],
  ghostDelivery: [
    {
      does: "ends a delivery of nothing, and counts it in a retry stream",
      seed: [...leased("$retry"), ["xdel", "$retry", "1-0"]],
      keys: ["retry", "counts", "taken"],
      args: ["g", "ch", "1-0", 0, 1],
      repaired: { retry: { entries: [], pending: { g: 0 } }, counts: { "z\ng\nch": "1" } }
    },
    {
      does: "changes the stamp of its consumer, whose late acknowledgement frees no ordering key",
      seed: [...leased("$log"), ["xdel", "$log", "1-0"], ["hset", "$taken", "c", "7", "other", "7"]],
      keys: ["log", "counts", "taken"],
      args: ["g", "ch", "1-0", 0, 0],
      repaired: { log: { entries: [], pending: { g: 0 } }, taken: { c: "8", other: "7" } }
    },
    {
      does: "leaves one that was touched lately",
      seed: [...leased("$log"), ["xdel", "$log", "1-0"]],
      keys: ["log", "counts", "taken"],
      args: ["g", "ch", "1-0", 60_000, 0],
      reply: 0
    },
    {
      does: "leaves one that has its message",
      seed: leased("$log"),
      keys: ["log", "counts", "taken"],
      args: ["g", "ch", "1-0", 0, 0],
      reply: 0
    }
  ],
  brokenFloor: [
    {
      does: "sets a floor below what is handed out",
      seed: [...leased("$log"), ["hset", "$floors", "ch", "1-0"]],
      keys: ["log", "floors"],
      args: ["beyond", "g", "ch"],
      repaired: { floors: { ch: "0-18446744073709551615" } }
    },
    {
      does: "sets a floor to what was read",
      seed: [...leased("$log"), ["xack", "$log", "g", "1-0"], ["hset", "$floors", "ch", "5-0"]],
      keys: ["log", "floors"],
      args: ["beyond", "g", "ch"],
      repaired: { floors: { ch: "1-0" } }
    },
    {
      does: "tells a group that is lost",
      seed: [...leased("$log"), ["hset", "$floors", "ch", "5-0"]],
      keys: ["log", "floors"],
      args: ["lost", "h", "ch"]
    },
    {
      does: "leaves a floor that is right",
      seed: [...leased("$log"), ["hset", "$floors", "ch", "0-0"]],
      keys: ["log", "floors"],
      args: ["beyond", "g", "ch"],
      reply: 0
    }
  ],
  brokenPause: [
    {
      does: "removes an entry that is no pause",
      seed: [["hset", "$paused", "g\na", "strange", "g\nb", "1 - {}"]],
      keys: ["paused"],
      args: ["g\na", "strange"],
      repaired: { paused: { "g\nb": "1 - {}" } }
    },
    {
      does: "leaves one that was written anew",
      seed: [["hset", "$paused", "g\na", "1 - {}"]],
      keys: ["paused"],
      args: ["g\na", "strange"],
      reply: 0
    }
  ],
  orphanRecord: [
    {
      does: "removes what is kept for nobody",
      seed: [["zadd", "$members", 1, "me"], ["hset", "$groups", "gg\nch", ""]],
      keys: ["groups", "floors", "retries", "members"],
      args: ["g"],
      repaired: { members: undefined }
    },
    ...[["hset", "$groups", "g\nch", ""], ["hset", "$floors", "ch", "1-0"], ["sadd", "$retries", "ch"]].map((kept) => ({
      does: `leaves it where ${kept[1]} has the group`,
      seed: [["zadd", "$members", 1, "me"], kept],
      keys: ["groups", "floors", "retries", "members"],
      args: ["g"],
      reply: 0
    }))
  ],
  orphanTrials: [
    {
      does: "forgets what is noted of nothing that is handed out",
      seed: [
        ["xgroup", "create", "$log", "g", "0", "mkstream"],
        ["xadd", "$log", "1-0", "p", "x"],
        ["xreadgroup", "group", "g", "c", "streams", "$log", ">"],
        ["hset", "$trials", "l1-0", "1 2", "r1-0", "1 2", "l2-0", "1 2", "strange", ""]
      ],
      keys: ["trials", "log", "retry"],
      args: ["g"],
      repaired: { trials: { "l1-0": "1 2" } }
    },
    {
      does: "leaves what is handed out",
      seed: [
        ["xgroup", "create", "$retry", "g", "0", "mkstream"],
        ["xadd", "$retry", "1-0", "p", "x"],
        ["xreadgroup", "group", "g", "c", "streams", "$retry", ">"],
        ["hset", "$trials", "r1-0", "1 2"]
      ],
      keys: ["trials", "log", "retry"],
      args: ["g"],
      reply: 0
    }
  ],
  letterCount: [
    {
      does: "writes the right count",
      seed: [["xadd", "$dead", "1-0", "k", "x"], ["hset", "$counts", "d", 5]],
      keys: ["dead", "counts"],
      args: [1, 1, "d", 1],
      repaired: { counts: { d: "1" } }
    },
    {
      does: "removes a count of nothing",
      seed: [["hset", "$counts", "d", 5]],
      keys: ["dead", "counts"],
      args: [0, 0, "d", 0],
      repaired: { counts: undefined }
    },
    {
      does: "does not judge when letters came meanwhile",
      seed: [["xadd", "$dead", "1-0", "k", "x"], ["hset", "$counts", "d", 5]],
      keys: ["dead", "counts"],
      args: [0, 0, "d", 0],
      reply: 0
    }
  ],
  settledCount: [
    {
      does: "writes how many were settled",
      seed: [...leased("$retry"), ["xack", "$retry", "g", "1-0"]],
      keys: ["retry", "counts"],
      args: ["g", "ch"],
      repaired: { counts: { "z\ng\nch": "1" } }
    },
    {
      does: "does not judge while there is something to be read",
      seed: [...leased("$retry"), ["xack", "$retry", "g", "1-0"], ["xadd", "$retry", "2-0", "p", "x"]],
      keys: ["retry", "counts"],
      args: ["g", "ch"],
      reply: 0
    }
  ],
  brokenRecurrence: [
    {
      does: "removes a tick of nothing",
      seed: [["zadd", "$ticks", 1, "k", 2, "other"]],
      keys: ["ticks", "recurring"],
      args: ["tick", "k", "", "events"],
      repaired: { ticks: { other: 2 } }
    },
    {
      does: "gives a definition its tick",
      seed: [["hset", "$recurring", "k", "x"]],
      keys: ["ticks", "recurring"],
      args: ["definition", "k", 5, "events"],
      repaired: { ticks: { k: 5 } }
    }
  ],
  lostOffer: [
    {
      does: "offers a letter again",
      seed: [["xadd", "$dead", "1-0", "p", "x"], ["hset", "$offered", "1-0", "1\nt"]],
      keys: ["dead", "offers", "offered"],
      args: ["1-0", "events"],
      repaired: { offers: { "1-0": 0 } }
    },
    {
      does: "forgets one that is gone",
      seed: [["hset", "$offered", "1-0", "1\nt", "cursor", "1-0"]],
      keys: ["dead", "offers", "offered"],
      args: ["1-0", "events"],
      repaired: { offered: { cursor: "1-0" } }
    }
  ]
}

/** Those that only look, with what they find. */
const looks: Readonly<Record<string, ReadonlyArray<Omit<Case, "repaired" | "reply"> & { readonly reply: unknown }>>> = {
  letterInTwoStates: [
    ...[
      ["waits", [["zadd", "$waiting", 1, member]], ""],
      ["is in the log", leased("$log"), ""],
      ["is ready again", leased("$retry"), "1-0"]
    ].map(([where, seed, position]) => ({
      does: `tells a letter that ${String(where)}`,
      seed: [["xadd", "$dead", "9-0", "p", "x"], ...seed as Case["seed"]],
      keys: ["dead", "waiting", "log", "retry"],
      args: ["9-0", "g", member, "1-0", String(position)],
      reply: 1
    })),
    {
      does: "tells none that is nowhere else",
      seed: [["xadd", "$dead", "9-0", "p", "x"], ...leased("$log"), ["xack", "$log", "g", "1-0"]],
      keys: ["dead", "waiting", "log", "retry"],
      args: ["9-0", "g", member, "1-0", ""],
      reply: 0
    }
  ],
  scanDeliveries: [{
    does: "tells a page, and where it ends",
    seed: [...leased("$log"), ["xadd", "$log", "2-0", "p", "x"], [
      "xreadgroup",
      "group",
      "g",
      "c",
      "streams",
      "$log",
      ">"
    ], [
      "xdel",
      "$log",
      "1-0"
    ]],
    keys: ["log"],
    args: ["g", "-", 1, 0],
    reply: [1, "(1-0", ["1-0"]]
  }, {
    does: "ends after about 1 MiB",
    seed: [
      ["xgroup", "create", "$log", "g", "0", "mkstream"],
      ...[1, 2, 3, 4].map((n) => ["xadd", "$log", `${n}-0`, "p", "x".repeat(600_000)]),
      ["xreadgroup", "group", "g", "c", "streams", "$log", ">"],
      ["xdel", "$log", "1-0"]
    ],
    keys: ["log"],
    args: ["g", "-", 10, 0],
    reply: [3, "(3-0", ["1-0"]]
  }, {
    does: "reads no message of a delivery that was touched lately",
    seed: [
      ["xgroup", "create", "$log", "g", "0", "mkstream"],
      ...[1, 2].map((n) => ["xadd", "$log", `${n}-0`, "p", "x".repeat(600_000)]),
      ["xreadgroup", "group", "g", "c", "streams", "$log", ">"]
    ],
    keys: ["log"],
    args: ["g", "-", 10, 60_000],
    reply: [2, "", []]
  }],
  scanBodies: [
    {
      does: "tells scheduled ones without a time, and those that are none",
      seed: [
        ["hset", "$bodies", "a", "\nx", "b", "h{}\n\nx", "c", "h{}\nx", "d", "x"],
        ["zadd", "$waiting", 1, "\nch\na", 1, "\nch\nc"]
      ],
      keys: ["bodies", "waiting"],
      args: [0, 10, "\nch\n"],
      reply: ["0", 4, ["b", "d"], ["c", "d"], 14]
    },
    {
      does: "tells those of a group",
      seed: [["hset", "$bodies", "1-0", "{}\nx", "2-0", "x"], ["zadd", "$waiting", 1, member]],
      keys: ["bodies", "waiting"],
      args: [0, 10, "g\nch\n"],
      reply: ["0", 2, ["2-0"], ["2-0"], 5]
    }
  ]
}

describe("scripts that judge", () => {
  it("every one has its cases", () => {
    // The cases of `brokenGate` are in `ordering.test.ts`.
    assert.deepStrictEqual(
      [...Object.keys(cases), ...Object.keys(looks), "brokenGate"].toSorted(),
      namesOf("checks")
    )
  })

  for (const [name, list] of Object.entries(cases)) {
    describe(name, async () => {
      const script = scriptNamed(name)
      for (const one of list) it(one.does, run(script, one))
      it("finds nothing where there is nothing", () => none(script, list[0]!.keys, list[0]!.args))
    })
  }

  for (const [name, list] of Object.entries(looks)) {
    describe(name, async () => {
      const script = scriptNamed(name)
      for (const { args, does, keys, reply, seed } of list) {
        it(does, async () => {
          const { dump, evaluate } = await seeded(seed)
          const before = await dump()
          assert.deepStrictEqual(await evaluate(script, keys, ...args), reply)
          assert.deepStrictEqual(await dump(), before)
        })
      }
    })
  }
})
