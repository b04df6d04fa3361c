/** What holds of all errors: a tag names one class, they go over a wire, and the errors of a store say whether trying again helps. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Effect, Schema } from "effect"
import * as Rotif from "rotif"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetter,
  DeadLetters,
  Deduplication,
  Groups,
  Inspector,
  Message,
  Middleware,
  Publisher,
  Redis,
  Retry,
  Scheduler,
  Subscription,
  Transaction
} from "rotif"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"

const source = join(import.meta.dirname, "../../src")

type ErrorClass = Schema.Codec<Cause.YieldableError & { readonly _tag: string }, unknown> & {
  readonly identifier: string
}

const about = { channel: "orders", id: "o-1", message: "the reason" }
const problem = { option: "limit", message: "expected at least 1" }
const published: Publisher.Receipt = { _tag: "Published", id: "o-1", channel: "orders", position: "1-0" }
const receipts: ReadonlyArray<Publisher.Receipt> = [
  published,
  {
    _tag: "Scheduled",
    id: "o-2",
    channel: "orders",
    position: undefined,
    dueAt: DateTime.makeUnsafe(1_700_000_000_000)
  },
  { _tag: "Duplicate", id: "o-3", channel: "orders", position: undefined },
  { _tag: "Duplicate", id: "o-4", channel: "orders", position: "1-0" }
]

const requestErrors: ReadonlyArray<Publisher.RequestError> = [
  new Channel.InvalidParams({ channel: "users.:id", message: "the param is missing" }),
  new Channel.InvalidPayload({ channel: "orders", operation: "encode", message: "expected a string" }),
  new Publisher.InvalidPublishOptions({ channel: "orders", message: "the id is empty" }),
  new Publisher.PayloadTooLarge({ channel: "orders", bytes: 2_000_000, limit: 1_048_576 }),
  new Publisher.PublishRefused({ channel: "orders", error: { _tag: "QuotaExceeded", left: 0 } })
]

const storeErrors: ReadonlyArray<Publisher.StoreError> = [
  new Broker.BrokerError({ reason: "Overloaded", operation: "append", message: "out of memory" }),
  new Publisher.DurabilityNotReached({ ...about, receipt: published, replicas: 0 }),
  new Publisher.PublishUncertain({ ...about, isLasting: true }),
  new Publisher.Unavailable(about)
]

/** One error of each class that a program can get. */
const samples: ReadonlyArray<Cause.YieldableError & { readonly _tag: string }> = [
  ...requestErrors,
  ...storeErrors,
  new Broadcast.InvalidListener(problem),
  new Broker.CommitRefused({ reason: "WrongType", key: "{rotif:0}:own:stock", message: "it holds a list" }),
  new Broker.GroupRemoved({ group: "billing", patterns: ["orders.*", "refunds"] }),
  new Channel.InvalidChannelName({ name: "a..b", message: "segment 2 is empty" }),
  new DeadLetter.InvalidDeadLetterOption(problem),
  new DeadLetter.OfferLost({ letterId: "0:1-0", name: "dead-letters" }),
  new DeadLetters.WrongChannel({ letterId: "0:1-0", channel: "orders", given: "refunds" }),
  new Deduplication.InProgress({ key: "o-1", leftMillis: 1_500 }),
  new Deduplication.InvalidKey({ key: "", message: "the key is empty" }),
  new Deduplication.KeyLost({ key: "o-1" }),
  new Groups.InvalidGroupOption(problem),
  new Inspector.InvalidInspectorOption(problem),
  new Message.LeaseLost({ channel: "orders", group: "billing", id: "o-1" }),
  new Middleware.InvalidMiddleware(problem),
  new Middleware.ValidationError({ channel: "orders", operation: "publish", message: "no total" }),
  new Redis.RedisError({ reason: "ConnectionLost", command: "xadd", message: "the connection was closed" }),
  new Retry.InvalidRetry(problem),
  new Scheduler.InvalidSchedule(problem),
  new Subscription.InvalidOnceKey({ message: "the key is empty" }),
  new Subscription.InvalidSubscription(problem),
  new Transaction.KeyRefused({ reason: "WrongSlot", key: "stock", message: "it is in another slot" }),
  new Transaction.TransactionTooLarge({ limit: 500 })
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

  it.effect.each(receipts)("a receipt $_tag goes over JSON, too", (receipt) =>
    Effect.gen(function*() {
      const codec = Schema.fromJsonString(Schema.toCodecJson(Publisher.Receipt))
      assert.deepStrictEqual(yield* Schema.decodeEffect(codec)(yield* Schema.encodeEffect(codec)(receipt)), receipt)
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
