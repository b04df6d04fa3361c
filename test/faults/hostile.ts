/** Hostile data: wrong contents for the keys of a namespace, by key family, and hostile publishes. */

export type Command = readonly [name: string, ...args: ReadonlyArray<string | number | Buffer>]

export interface Attack {
  readonly name: string
  readonly commands: ReadonlyArray<Command>
}

const invalidUtf8 = Buffer.from([0x22, 0xff, 0xfe, 0xc3, 0x28, 0x22])
const binary = Buffer.from([0, 1, 10, 13, 0xff, 0x80, 0x7b, 0x7d])
const huge = 9_007_199_254_740_991
const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth)

/** Payloads, some of them valid for the channel. */
const payloads: ReadonlyArray<readonly [name: string, payload: string | Buffer]> = [
  ["nesting of 100,000 levels", nested(100_000)],
  ["objects in objects", "{\"a\":".repeat(50_000) + "1" + "}".repeat(50_000)],
  ["an array of 300,000", `[${"0,".repeat(300_000)}0]`],
  ["__proto__", "{\"__proto__\":{\"polluted\":true},\"constructor\":{\"prototype\":{\"polluted\":true}}}"],
  ["keys that are there twice", "{\"a\":1,\"a\":2,\"__proto__\":1,\"__proto__\":{\"polluted\":1}}"],
  ["invalid UTF-8", invalidUtf8],
  ["half a surrogate pair", "\"\\ud800 and \\udfff\""],
  ["a number that is none", "1e999999"],
  ["a number of a million digits", "9".repeat(1_000_000)],
  ["no JSON", "\u0000{"],
  ["nothing", ""],
  ["4 MiB", `"${"x".repeat(4 << 20)}"`]
]

const meta = (fields: object) => JSON.stringify({ i: "foreign", h: {}, t: 1, n: 1, d: 1, c: 0, o: "1-1", ...fields })

/** Fields of entries that are no messages, or impossible ones. */
const entries: ReadonlyArray<readonly [name: string, fields: ReadonlyArray<string | Buffer>]> = [
  ["foreign fields", ["name", "value"]],
  ["an empty name", ["", ""]],
  ["binary fields", [binary, binary]],
  ["no payload", ["i", "1"]],
  ["no id", ["p", "\"ok\""]],
  ["binary id", ["i", binary, "p", "\"ok\""]],
  ["an id of 1 MiB", ["i", "x".repeat(1 << 20), "p", "1"]],
  ["headers that are no object", ["i", "1", "h", "[1,2]", "p", "\"ok\""]],
  ["headers that pollute", [
    "i",
    "1",
    "h",
    "{\"__proto__\":\"polluted\",\"constructor\":\"x\",\"n\":1}",
    "r",
    "{\"__proto__\":{\"polluted\":\"yes\"}}",
    "p",
    "\"ok\""
  ]],
  ["100,000 headers", [
    "i",
    "1",
    "h",
    JSON.stringify(Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`h${n}`, ""]))),
    "p",
    "\"ok\""
  ]],
  ["an expiry that is none", ["i", "1", "x", "NaN", "p", "\"ok\""]],
  ["an expiry before all time", ["i", "1", "x", "-1e308", "p", "\"ok\""]],
  ["a body and no description", ["b", "\"ok\""]],
  ["a body without a payload", ["i", "1", "b", "h{}"]],
  ["late by no number", ["i", "1", "l", "NaN", "b", "x5\n\n\"ok\""]],
  ["fields that are there twice", ["p", "1", "i", "1", "i", "2", "p", "\"ok\""]],
  ["a description that is no JSON", ["b", "{\n\"ok\""]],
  ["a description that is an array", ["b", "[]\n\"ok\""]],
  ["a description without an id", ["b", "{\"i\":5}\n\"ok\""]],
  ["an attempt beyond all bounds", ["b", `${meta({ n: huge })}\n"fail"`]],
  ["attempt 0", ["b", `${meta({ n: 0 })}\n"fail"`]],
  ["numbers that are none", ["b", `${meta({ n: -1, d: "x", c: 1.5, t: null, e: "never" })}\n"ok"`]],
  ["a time beyond the calendar", ["b", `${meta({ t: huge })}\n"ok"`]],
  ["a million crashes", ["b", `${meta({ c: 1_000_000, d: huge })}\n"ok"`]],
  ["a history of nonsense", ["b", `${meta({ y: [null, 1, { reason: "term" }, { reason: "no" }], f: [] })}\n"ok"`]],
  ["a failure of a dead letter", [
    "k",
    "nobody\nnowhere\nterm",
    "b",
    `${meta({ ch: "elsewhere", g: "other", f: { reason: "term", message: 5, cause: {} } })}\n"ok"`
  ]]
]

const scores = ["-inf", "+inf", "0", "-1", "1e308", "0.5"]

/** Names of channels, groups and ids, as bytes. */
const names: ReadonlyArray<string | Buffer> = [
  "",
  "\n",
  "a\nb",
  "*",
  "**",
  "**.".repeat(300) + "*",
  ":",
  "..",
  "__proto__",
  "constructor",
  "x".repeat(5_000),
  "{other:0}",
  "%7b",
  binary,
  invalidUtf8
]

const join = (...parts: ReadonlyArray<string | Buffer>): Buffer => Buffer.concat(parts.map((part) => Buffer.from(part)))

const recurrences: ReadonlyArray<string> = [
  "",
  "{",
  "5",
  "null",
  "[]",
  "\"text\"",
  "{}",
  "{\"everyMillis\":0,\"catchUp\":\"none\"}",
  "{\"everyMillis\":\"x\",\"catchUp\":\"none\"}",
  "{\"everyMillis\":1e999,\"catchUp\":\"latest\"}",
  "{\"everyMillis\":1}",
  "{\"everyMillis\":1,\"catchUp\":null}",
  "{\"everyMillis\":1,\"catchUp\":{\"all\":1000000000}}",
  "{\"everyMillis\":1000,\"catchUp\":{\"all\":\"x\"}}",
  "{\"cron\":\"* * * * * *\",\"and\":true,\"zone\":\"Nowhere/City\",\"overlap\":\"x\",\"catchUp\":\"latest\"}",
  "{\"cron\":5,\"and\":false,\"zone\":5,\"overlap\":[],\"catchUp\":\"latest\"}",
  "{\"cron\":\"0 0 0 30 2 *\",\"and\":false,\"zone\":\"UTC\",\"overlap\":\"first\",\"catchUp\":{\"all\":1000}}"
]

/** Gives the attacks on a namespace with the hash tag `tag`, in which `group` reads `channel` and others. */
export const attacks = (tag: string, channel: string, group: string): ReadonlyArray<Attack> => {
  const key = (name: string) => `${tag}:${name}`
  const streams = [`log:${channel}`, `retry:${group}:${channel}`, "dead", "outbox"]
  return [
    ...payloads.map(([name, payload]) => ({
      name: `payload: ${name}`,
      commands: [["xadd", key(`log:${channel}`), "*", "i", "bomb", "p", payload] as const]
    })),
    ...streams.flatMap((stream) =>
      entries.map(([name, fields]) => ({
        name: `${stream}: ${name}`,
        commands: [["xadd", key(stream), "*", ...fields] as const]
      }))
    ),
    { name: "waiting: names that are none", commands: names.map((name): Command => ["zadd", key("waiting"), 1, name]) },
    {
      name: "waiting: groups, channels and ids that are none",
      commands: names.flatMap((name, i): ReadonlyArray<Command> => {
        const score = scores[i % scores.length]!
        return [
          ["zadd", key("waiting"), score, join(name, "\n", channel, "\nid")],
          ["zadd", key("waiting"), score, join("\n", name, "\nid")],
          ["zadd", key("waiting"), score, join(group, "\n", channel, "\n", name)],
          ["zadd", key("waiting"), score, join("\n", channel, "\n", name)]
        ]
      })
    },
    {
      name: "waiting: more than one batch of what cannot be read",
      commands: Array.from(
        { length: 600 },
        (_, n): Command => ["zadd", key("waiting"), 1, join(Buffer.from([0xff]), `${n}\n${channel}\nid`)]
      )
    },
    {
      name: "bodies: what is none",
      commands: ["", "x", "no line feed", "\n", "x1\nh{\n\n1", "q\n\n", binary, "xNaN\n\n\"ok\""].flatMap((body, n) =>
        [group, ""].flatMap((owner): ReadonlyArray<Command> => [
          ["hset", key(`bodies:${owner}:${channel}`), `body${n}`, body],
          ["zadd", key("waiting"), 1, `${owner}\n${channel}\nbody${n}`]
        ])
      )
    },
    {
      name: "ticks: keys without a definition",
      commands: names.map((name, i): Command => ["zadd", key("ticks"), scores[i % scores.length]!, name])
    },
    {
      name: "ticks: more than one batch of what cannot be read",
      commands: Array.from(
        { length: 150 },
        (_, n): Command => ["zadd", key("ticks"), 1, join(Buffer.from([0xff]), String(n))]
      )
    },
    {
      name: "recurring: definitions that are none",
      commands: recurrences.flatMap((recurrence, n): ReadonlyArray<Command> => [
        ["hset", key("recurring"), `hostile${n}`, `${recurrence}\n${channel}\n\n"ok"`],
        ["zadd", key("ticks"), scores[n % 4]!, `hostile${n}`]
      ])
    },
    {
      name: "recurring: bodies that are none",
      commands: ["", "x", "h{\n\n1"].flatMap((body, n): ReadonlyArray<Command> => [
        ["hset", key("recurring"), `body${n}`, `{"everyMillis":60000,"catchUp":"latest"}\n${channel}\n${body}`],
        ["zadd", key("ticks"), 1, `body${n}`]
      ])
    },
    {
      name: "channels: names that are none",
      commands: [
        ...names.map((name): Command => ["hset", key("channels"), name, ""]),
        ["hincrby", key("meta"), "v", 1]
      ]
    },
    {
      name: "channels: limits that are none",
      commands: [
        ...["{", "null", "5", "{\"minId\":\"x\"}", "{\"maxLength\":\"x\"}", "{\"maxAgeMillis\":\"x\"}", binary].map(
          (limits, n): Command => ["hset", key("channels"), `limits${n}`, limits]
        ),
        ...Array.from({ length: 7 }, (_, n): Command => ["xadd", key(`log:limits${n}`), "*", "i", "1", "p", "\"ok\""]),
        ["hincrby", key("meta"), "v", 1]
      ]
    },
    {
      name: "a log that is a string",
      commands: [
        ["set", key("log:string"), "x"],
        ["hset", key("channels"), "string", ""],
        ["hincrby", key("meta"), "v", 1],
        ["publish", key("events"), "channel\nstring"]
      ]
    },
    {
      name: "a retry stream that is a hash",
      commands: [
        ["hset", key(`retry:${group}:hash`), "a", "b"],
        ["sadd", key(`retries:${group}`), "hash"],
        ["hincrby", key("meta"), "v", 1],
        ["publish", key("events"), `retry\n${group}\nhash`]
      ]
    },
    {
      name: "groups: names and patterns that are none",
      commands: [
        ...names.map((name): Command => ["hset", key("groups"), name, ""]),
        ...names.map((name): Command => ["hset", key("groups"), join("nobody\n", name, ".x"), ""]),
        ["hincrby", key("meta"), "v", 1]
      ]
    },
    {
      name: "retries: names that are none",
      commands: [
        ...names.map((name): Command => ["sadd", key(`retries:${group}`), name]),
        ["hincrby", key("meta"), "v", 1]
      ]
    },
    { name: "floors: what is no position", commands: [["hset", key(`floors:${group}`), channel, "x", "", binary]] },
    {
      name: "members: what is no member",
      commands: names.map((name, i): Command => ["zadd", key(`members:${group}`), scores[i % scores.length]!, name])
    },
    { name: "meta: a version that is no number", commands: [["hset", key("meta"), "v", "x"]] },
    { name: "meta: a version beyond all bounds", commands: [["hset", key("meta"), "v", "9223372036854775807"]] },
    {
      name: "counts: what is no number",
      commands: [
        ...["a", "u", "f", "r", "b", "c", "x", "z", "s"].map(
          (letter): Command => ["hset", key("counts"), `${letter}\n${group}\n${channel}`, "x"]
        ),
        ["hset", key("counts"), `d\n${group}\n${channel}\nterm`, "9223372036854775807", binary, binary]
      ]
    },
    {
      name: "offers: what is no letter",
      commands: [
        ...names.map((name, i): Command => ["zadd", key("offers:deaths"), scores[i % 4]!, name]),
        ["hset", key("offered:deaths"), "1-1", binary]
      ]
    },
    {
      name: "offered: a cursor that is no position",
      commands: [["hset", key("offered:deaths"), "cursor", "x"]]
    },
    {
      name: "once keys: values that are none",
      commands: names.map((name, i): Command => ["hset", key(`once:${group}`), name, i % 2 === 0 ? "x" : binary])
    },
    {
      name: "relayed: what is no position",
      commands: [["hset", key("relayed"), "0", "x", "1", ""]]
    },
    {
      name: "outbox: messages that are none",
      commands: [
        "{\"id\":\"1\",\"channel\":\"\"}",
        `{"id":"1","channel":"${channel}","window":5,"due":"x","params":1,"headers":"y","limits":"z"}`,
        `{"id":"1","channel":"${channel}","window":{"key":{},"millis":"x"}}`,
        `{"id":"1","channel":"${channel}","due":{"delayMillis":"x"}}`,
        `{"id":"1","channel":"${channel}","due":{}}`,
        `{"id":"1","channel":"${channel}","expiresInMillis":{},"replace":"x"}`,
        `{"id":"1","channel":"${channel}","limits":{"maxLength":"x","minId":[]}}`,
        `{"id":"1","channel":"a\\nb"}`
      ].map((text): Command => ["xadd", key("outbox"), "*", "m", text, "p", "\"ok\""])
    },
    {
      name: "leases of agents that are of a wrong type",
      commands: [
        ["del", key("janitor"), key("retention")],
        ["hset", key("janitor"), "a", "b"],
        ["hset", key("retention"), "a", "b"]
      ]
    },
    {
      name: "events: what is none",
      commands: names.flatMap((name): ReadonlyArray<Command> => [
        ["publish", key("events"), name],
        ["publish", key("events"), join("channel\n", name)],
        ["publish", key("events"), join("retry\n", name, "\n", name)]
      ])
    },
    {
      name: "broadcasts: payloads that are none",
      commands: [
        ...names.map((name): Command => ["publish", key(`broadcast:${channel}`), name]),
        ...["{", "5", "null", "{\"h\":5}", "{\"h\":{\"__proto__\":{\"polluted\":\"1\"}}}", "{\"p\":{\"a\":1}}"].map(
          (envelope): Command => ["publish", key(`broadcast:${channel}`), `${channel}\n${envelope}\n"ok"`]
        ),
        ...payloads.map(([, payload]): Command => [
          "publish",
          key(`broadcast:${channel}`),
          join(`${channel}\n\n`, payload)
        ])
      ]
    },
    {
      // Last ids beyond the calendar: what is added later follows them.
      name: "positions in the far future",
      commands: [
        ["xadd", key(`log:${channel}`), "18446744073709551000-1", "i", "1", "p", "\"ok\""],
        ["xadd", key("dead"), "18446744073709551000-1", "b", "{}\n1"]
      ]
    }
  ]
}
