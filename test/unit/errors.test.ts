/** What holds of all errors: a tag names one class, they go over a wire, and the errors of a store say whether trying again helps. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Schema } from "effect"
import * as Rotif from "rotif"
import { Broker, Deduplication, Inspector, Publisher, Redis } from "rotif"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"

const source = join(import.meta.dirname, "../../src")

type ErrorClass = Schema.Codec<Cause.YieldableError & { readonly _tag: string }, unknown> & {
  readonly identifier: string
}

/** One error of each class that a program can get. */
const samples: ReadonlyArray<Cause.YieldableError & { readonly _tag: string }> = [
  new Broker.BrokerError({ reason: "Overloaded", operation: "append", message: "out of memory" }),
  new Broker.CommitRefused({ reason: "WrongType", key: "{rotif:0}:own:stock", message: "it holds a list" }),
  new Broker.GroupRemoved({ group: "billing", patterns: ["orders.*", "refunds"] }),
  new Deduplication.InProgress({ key: "o-1", leftMillis: 1_500 }),
  new Deduplication.InvalidKey({ key: "", message: "the key is empty" }),
  new Deduplication.KeyLost({ key: "o-1" }),
  new Inspector.InvalidInspectorOption({ option: "limit", message: "expected at least 1" }),
  new Redis.RedisError({ reason: "ConnectionLost", command: "xadd", message: "the connection was closed" })
]

/** The classes of errors that the public modules export. */
const classes: ReadonlyMap<string, ErrorClass> = new Map(
  Object.values(Rotif)
    .flatMap((module): ReadonlyArray<unknown> => Object.values(module))
    .filter((member) => typeof member === "function" && member.prototype instanceof Error && Schema.isSchema(member))
    .map((member) => member as ErrorClass)
    .map((member) => [member.identifier, member])
)

describe("errors", () => {
  it("no two classes have the same tag", async () => {
    const files = (await readdir(source, { recursive: true })).filter((file) => file.endsWith(".ts"))
    const texts = await Promise.all(files.map((file) => readFile(join(source, file), "utf8")))
    const tags = texts.flatMap((text) =>
      Array.from(text.matchAll(/TaggedError(?:<\w+>\(\))?\("(\w+)"/g), ([, tag]) => tag!)
    )
    assert.isAbove(tags.length, 20)
    assert.deepStrictEqual(tags.toSorted(), [...new Set(tags)].sort())
  })

  it("each class has its sample here", () => {
    assert.deepStrictEqual(samples.map(({ _tag }) => _tag).toSorted(), [...classes.keys()].toSorted())
  })

  it.effect.each(samples)("$_tag goes over JSON and comes back as the same error", (error) =>
    Effect.gen(function*() {
      const codec = Schema.fromJsonString(Schema.toCodecJson(classes.get(error._tag)!))
      const decoded = yield* Schema.decodeEffect(codec)(yield* Schema.encodeEffect(codec)(error))
      assert.deepStrictEqual(decoded, error)
      assert.strictEqual(decoded.constructor, error.constructor)
      assert.strictEqual(decoded.message, error.message)
      assert.isNotEmpty(decoded.message)
    }))

  it("each store error of a publish says whether the same publish may succeed later", () => {
    const at = { channel: "orders", id: "o-1", message: "" }
    const receipt = { _tag: "Published", id: "o-1", channel: "orders", position: "1-0" } as const
    const found = ([
      new Publisher.Unavailable(at),
      new Publisher.PublishUncertain({ ...at, isLasting: false }),
      new Publisher.PublishUncertain({ ...at, isLasting: true }),
      new Publisher.DurabilityNotReached({ ...at, receipt, replicas: 0 }),
      new Broker.BrokerError({ reason: "Overloaded", operation: "append", message: "" }),
      new Broker.BrokerError({ reason: "Refused", operation: "append", message: "" })
    ] satisfies ReadonlyArray<Publisher.StoreError>).map(({ isRetryable }) => isRetryable)
    assert.deepStrictEqual(found, [true, true, false, true, true, false])
  })
})
