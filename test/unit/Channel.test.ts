/** Channels: names checked where they are defined, payloads as JSON, params, patterns, and the shard of a name. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Option, Result, Schema } from "effect"
import { Channel } from "rotif"
import * as Keys from "../../src/redisBroker/keys.ts"
import { compile } from "../../src/internal/pattern.ts"

const problem = (name: string, kind: "name" | "pattern" = "name") => {
  const result = Channel.checkName(name, kind)
  return Result.isFailure(result) ? result.failure.message : undefined
}

const textOptions = { payload: Schema.String }

describe("Channel.make: names", () => {
  it.each([
    "orders",
    "orders.placed",
    "a:b",
    "a:b.c:d",
    "v2.2024.007",
    "order-lines.new_items",
    "-._",
    "Заказы.新規.sipariş",
    "👋.ok",
    "with space",
    "{tag}.50%",
    "__proto__.constructor",
    ":",
    "users.:userId.notices",
    "users.:userId.devices.:deviceId"
  ])("takes %j", (name) => {
    assert.strictEqual(Channel.make(name, textOptions).name, name)
    assert.isUndefined(problem(name))
  })

  it.each([
    ["", "must not be empty"],
    [".", "segment 1 of 2 is empty"],
    ["a.", "segment 2 of 2 is empty"],
    [".a", "segment 1 of 2 is empty"],
    ["a..b", "segment 2 of 3 is empty"],
    ["a.\n", "segment 2 of 2 has a control character"],
    ["a\u0000", "has a control character"],
    ["a\u007f", "has a control character"],
    ["a\u0085", "has a control character"],
    ["a\ud800", "half of a surrogate pair"],
    ["\udc00.a", "half of a surrogate pair"],
    ["a.*", "only Channel.pattern takes wildcards"],
    ["a.**", "only Channel.pattern takes wildcards"],
    ["a*b", "only Channel.pattern takes wildcards"],
    ["x.:id.y.:id", "repeats the param \":id\""]
  ])("refuses %j and says why", (name, reason) => {
    assert.throws(() => Channel.make(name, textOptions), Channel.InvalidChannelName, reason)
    assert.include(problem(name), reason)
  })

  it("takes 1,024 bytes and not one more, counted in UTF-8", () => {
    const wide = "é".repeat(512)
    assert.isUndefined(problem("x".repeat(1024)))
    assert.isUndefined(problem(wide))
    assert.include(problem("x".repeat(1025)), "this one has 1025")
    assert.include(problem(`${wide}x`), "this one has 1025")
  })

  it("refuses a value that is no string", () => {
    assert.include(problem(7 as unknown as string), "must be a string")
  })

  it("names the params of a template, in order", () => {
    assert.deepStrictEqual(Channel.make("a.:one.b.:two.:", textOptions).paramNames, ["one", "two"])
  })
})

describe("Channel.pattern", () => {
  it.each(["*", "**", "orders.*", "**.placed", "a.*.**.b", "a:b.*", "orders.placed"])("takes %j", (text) => {
    assert.strictEqual(Channel.pattern(text, textOptions).pattern, text)
  })

  it.each([
    ["", "a pattern must not be empty"],
    ["a..*", "segment 2 of 3 is empty"],
    ["orders*", "mixes \"*\" with text"],
    ["***", "mixes \"*\" with text"],
    ["a.*\t", "control character"],
    ["*.\ud800", "half of a surrogate pair"],
    [`${"a".repeat(1023)}.*`, "at most 1,024 bytes"],
    [Array(65).fill("*").join("."), "more than 64 wildcards"]
  ])("refuses %j and says why", (text, reason) => {
    assert.throws(() => Channel.pattern(text, textOptions), Channel.InvalidChannelName, reason)
  })
})

describe("Channel.union", () => {
  it("refuses none, and one name twice", () => {
    const one = Channel.make("one", textOptions)
    assert.throws(() => Channel.union([]), Channel.InvalidChannelName, "at least one")
    assert.throws(
      () => Channel.union([one, Channel.make("one", { payload: Schema.Int })]),
      "\"one\" is in the union twice"
    )
  })
})

describe("Channel.make: limits", () => {
  it("turns them into selectors of a backend", () => {
    const limits = { maxLength: 10, maxAge: "2 minutes", minId: "1700000000000-0" } as const
    assert.deepStrictEqual(Channel.limits(Channel.make("a", { ...textOptions, limits })), {
      maxLength: 10,
      maxAgeMillis: 120_000,
      minId: "1700000000000-0"
    })
    assert.isUndefined(Channel.limits(Channel.make("a", textOptions)))
  })

  it.each([{ maxLength: -1 }, { maxLength: 1.5 }, { maxAge: 0 }, { minId: "yesterday" }])("refuses %j", (limits) => {
    assert.throws(() => Channel.make("a", { ...textOptions, limits }), Channel.InvalidChannelName, "invalid limits")
  })
})

/** The stored form of a value by a channel of this schema, and the value decoded from it. */
const roundTrip = Effect.fnUntraced(function*<S extends Schema.Constraint>(schema: S, value: S["Type"]) {
  const channel = Channel.make("values", { payload: schema })
  const text = yield* Channel.encode(channel, value)
  return { text, value: yield* Channel.decode(channel, text) }
})

class Money extends Schema.Class<Money>("Money")({ amount: Schema.BigInt, currency: Schema.String }) {
  get isFree() {
    return this.amount === 0n
  }
}

interface Tree {
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})
const Trees = Channel.make("trees", { payload: Tree })
const Anything = Channel.make("anything", { payload: Schema.Unknown })

const nested = (depth: number): Tree => {
  let tree: Tree = { children: [] }
  for (let i = 0; i < depth; i++) tree = { children: [tree] }
  return tree
}

describe("Channel.encode and decode", () => {
  it.effect("carry a Date, a BigInt, an Option, a brand and a class as JSON", () =>
    Effect.gen(function*() {
      const at = new Date(1_700_000_000_123)
      assert.deepStrictEqual(yield* roundTrip(Schema.Date, at), { text: "\"2023-11-14T22:13:20.123Z\"", value: at })
      const big = 2n ** 80n
      assert.deepStrictEqual(yield* roundTrip(Schema.BigInt, big), { text: `"${big}"`, value: big })
      for (const option of [Option.none<Date>(), Option.some(at)]) {
        assert.deepStrictEqual((yield* roundTrip(Schema.Option(Schema.Date), option)).value, option)
      }
      const Id = Schema.String.pipe(Schema.brand("Id"))
      assert.deepStrictEqual(yield* roundTrip(Id, Id.make("o-1")), { text: "\"o-1\"", value: Id.make("o-1") })
      const { value: money } = yield* roundTrip(Money, new Money({ amount: 0n, currency: "EUR" }))
      assert.instanceOf(money, Money)
      assert.isTrue(money.isFree)
    }))

  const Everything = Schema.Struct({
    at: Schema.Date,
    big: Schema.BigInt,
    note: Schema.Option(Schema.String),
    set: Schema.ReadonlySet(Schema.Int),
    rows: Schema.Array(Schema.Record(Schema.String, Schema.Finite)),
    either: Schema.Union([Schema.Null, Schema.Boolean, Schema.Literals(["a", "b"])])
  })

  const same = Schema.toEquivalence(Everything)

  it.effect.prop("give back every value of a schema as it was", [Everything], ([value]) =>
    Effect.gen(function*() {
      assert.isTrue(same((yield* roundTrip(Everything, value)).value, value))
    }), { arbitrary: { runs: 100 } })

  it.effect.each([
    [
      "a value that refers to itself",
      Anything,
      (() => {
        const self: Record<string, unknown> = {}
        self["self"] = self
        return self
      })()
    ],
    [
      "a tree that is its own child",
      Trees,
      (() => {
        const children: Array<Tree> = []
        const tree: Tree = { children }
        children.push(tree)
        return tree
      })()
    ],
    ["a value nested 100,000 times", Trees, nested(100_000)],
    ["nothing at all", Anything, undefined],
    ["a function", Anything, () => 1],
    ["a BigInt where none is declared", Anything, 1n],
    ["an object whose toJSON throws", Anything, {
      toJSON: () => {
        throw new Error("no")
      }
    }],
    ["a value that does not fit", Channel.make("amounts", { payload: Schema.Int }), 1.5]
  ] as ReadonlyArray<readonly [string, Channel.Any, unknown]>)(
    "fail typed for %s",
    ([, channel, value]) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(
          Channel.encode(channel, value) as Effect.Effect<string, Channel.InvalidPayload>
        )
        assert.strictEqual(error._tag, "InvalidPayload")
        assert.strictEqual(error.operation, "encode")
        assert.strictEqual(error.channel, channel.name)
        assert.include(error.message, `"${channel.name}"`)
      })
  )

  it.effect("fail with a type for text that is not JSON, does not fit the schema, or is nested too deep", () =>
    Effect.gen(function*() {
      const depth = 100_000
      const texts = ["", "{", "{\"children\":3}", `${"{\"children\":[".repeat(depth)}${"]}".repeat(depth)}`]
      const errors = yield* Effect.forEach(texts, (text) => Effect.flip(Channel.decode(Trees, text)))
      assert.deepStrictEqual(
        errors.map(({ _tag, operation }) => [_tag, operation]),
        texts.map(() => ["InvalidPayload", "decode"])
      )
      assert.include(errors[2]!.message, "[\"children\"]")
    }))

  it.effect("name the place of a mistake, never the value", () =>
    Effect.gen(function*() {
      const Card = Channel.make("cards", { payload: Schema.Struct({ number: Schema.Int }) })
      const secret = "4111-1111"
      const errors = [
        yield* Effect.flip(Channel.decode(Card, JSON.stringify({ number: secret }))),
        yield* Effect.flip(Channel.decode(Card, `{"number": ${secret}-}`)),
        yield* Effect.flip(Channel.encode(Card, { number: secret as unknown as number }))
      ]
      for (const { message } of errors) assert.notInclude(message, secret)
      assert.include(errors[0]!.message, "[\"number\"]")
    }))

  it.effect("take \"__proto__\" for a name like any other", () =>
    Effect.gen(function*() {
      const Scores = Channel.make("scores", { payload: Schema.Record(Schema.String, Schema.Unknown) })
      const Named = Channel.make("named", { payload: Schema.Struct({ name: Schema.String }) })
      const text = "{\"__proto__\":{\"isAdmin\":true},\"a\":1}"
      const scores = yield* Channel.decode(Scores, text)
      assert.deepStrictEqual(Object.keys(scores).sort(), ["__proto__", "a"])
      assert.isUndefined(scores["isAdmin"])
      assert.strictEqual(yield* Channel.encode(Scores, scores), text)
      const named = yield* Channel.decode(Named, "{\"__proto__\":{\"isAdmin\":true},\"name\":\"x\"}")
      assert.notProperty(named, "isAdmin")
      assert.notProperty({}, "isAdmin")
    }))
})

describe("Channel.checkParams", () => {
  const Device = Channel.make("users.:userId.devices.:__proto__", textOptions)
  const check = (params: unknown) => {
    const result = Channel.checkParams(Device, params)
    return Result.isFailure(result) ? result.failure.message : result.success
  }

  it("gives back exactly the params of the template", () => {
    const params = check(JSON.parse("{\"userId\":\"42\",\"__proto__\":\"phone\"}"))
    assert.deepStrictEqual(Object.entries(params), [["userId", "42"], ["__proto__", "phone"]])
  })

  it("says which one is missing, empty, of a wrong type or unknown", () => {
    assert.include(check(undefined), "\"userId\" must be a string")
    assert.include(check({ userId: "" }), "\"userId\" must be a string that is not empty")
    assert.include(check({ userId: 42 }), "\"userId\" must be a string")
    assert.include(check({ userId: "42" }), "\"__proto__\" must be a string")
    assert.include(check("42"), "params must be a record")
    assert.include(
      check({ userId: "1", ["__proto__"]: "2", other: "3" }),
      "no param \"other\"; it has userId, __proto__"
    )
  })
})

/** The meaning of a pattern as plainly as possible; it takes exponential time. */
const matchesSlowly = (pattern: ReadonlyArray<string>, name: ReadonlyArray<string>): boolean => {
  const [wanted, ...rest] = pattern
  const [segment, ...segments] = name
  if (wanted === undefined || segment === undefined) return wanted === segment
  if (wanted === "**") return matchesSlowly(rest, segments) || matchesSlowly(pattern, segments)
  return (wanted === "*" || wanted === segment) && matchesSlowly(rest, segments)
}

const segments = (from: ReadonlyArray<string>, maxLength: number) =>
  Arbitrary.array(Arbitrary.schema(Schema.Literals(from)), { minLength: 1, maxLength })

describe("matching of patterns", () => {
  it.each([
    ["orders.*", "orders.placed", true],
    ["orders.*", "orders", false],
    ["orders.*", "orders.placed.late", false],
    ["orders.**", "orders.placed.late", true],
    ["orders.**", "orders", false],
    ["**.late", "orders.placed.late", true],
    ["**.late", "late", false],
    ["a.**.b.**.c", "a.x.b.b.b.c", true],
    ["a.**.b.**.c", "a.b.c", false],
    ["*", "a", true],
    ["**", "a.b.c", true],
    ["orders.placed", "orders.placed", true],
    ["orders.*", "ordersXplaced", false],
    ["users.*.notices", "users.:userId.notices", true]
  ])("%s on %s is %s", (pattern, name, expected) => {
    assert.strictEqual(compile(pattern)(name), expected)
  })

  it.prop(
    "agrees with a slow matcher",
    [segments(["a", "b", "*", "**"], 7), segments(["a", "b", "c"], 9)],
    ([pattern, name]) => compile(pattern.join("."))(name.join(".")) === matchesSlowly(pattern, name),
    { arbitrary: { runs: 5_000 } }
  )

  it.prop(
    "agrees with it where a pattern fills more than one word of bits",
    [segments(["a", "b", "*"], 40), segments(["a", "b", "*"], 40), segments(["a", "b"], 90)],
    ([start, end, name]) => {
      const pattern = [...start, "**", ...end]
      const fitting = pattern.flatMap((text) => text === "**" ? name : text === "*" ? ["c"] : [text])
      return [fitting, fitting.slice(1), [...fitting, "a"], name].every((each) =>
        compile(pattern.join("."))(each.join(".")) === matchesSlowly(pattern, each)
      )
    },
    { arbitrary: { runs: 2_000 } }
  )

  it.prop(
    "takes the text of names literally",
    [Arbitrary.schema(Schema.Literals(["(a+)+$", "[a-z]", "a|b", "^", "\\d", "a?", "{a,b}", "!a"])), Schema.String],
    ([text, name]) => compile(`${text}.*`)(`${name.replaceAll(".", "")}.x`) === (name.replaceAll(".", "") === text),
    { arbitrary: { runs: 500 } }
  )
})

/** A name that counts the reads of its segments. */
const counted = (name: ReadonlyArray<string>) => {
  const count = { looks: 0 }
  const segments = new Proxy(name, {
    get: (target, property) => {
      if (property !== "length") count.looks++
      return Reflect.get(target, property)
    }
  })
  return { count, name: { split: () => segments } as unknown as string }
}

describe("matching of hostile patterns", () => {
  // As long as names may be: 512 segments, and as many wildcards as a pattern may have.
  const long = Array<string>(512).fill("a")
  const half = Array<string>(250).fill("a")
  it.each([
    ["many \"**\"", [...Array.from({ length: 64 }, () => ["**", "a"]).flat(), "b"]],
    ["many \"*\" after a \"**\"", ["**", ...Array<string>(63).fill("*"), "b"]],
    ["a long text after a \"**\"", ["**", ...half, "b"]],
    ["a long text between two \"**\"", ["**", ...half, "b", "**"]]
  ])("%s: each segment is looked at once", (_, pattern) => {
    assert.isUndefined(problem(pattern.join("."), "pattern"))
    const { count, name } = counted(long)
    assert.isFalse(compile(pattern.join("."))(name))
    // Its segments, and that it can be gone through.
    assert.strictEqual(count.looks, long.length + 1)
  })
})

describe("shards", () => {
  it("do not change between versions: they decide where data is found", () => {
    assert.deepStrictEqual(["orders.placed", "a", "Заказы", ""].map((name) => Keys.shardOf(name, 8)), [7, 4, 2, 5])
  })

  it("share names evenly", () => {
    for (const count of [2, 3, 8, 64]) {
      const sizes = Array<number>(count).fill(0)
      const names = 1_000 * count
      for (let i = 0; i < names; i++) sizes[Keys.shardOf(`tenant-${i}.orders`, count)]!++
      assert.isAbove(Math.min(...sizes), 800)
      assert.isBelow(Math.max(...sizes), 1_200)
    }
  })
})
