/** Limits of inputs (docs/security.md): beyond its limit each input fails with an error of its own, and nothing is stored. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Queue, Schema } from "effect"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  Publisher,
  Rotif,
  Scheduler,
  Subscription,
  Transaction
} from "rotif"

const Text = Channel.make("texts", { payload: Schema.String })
const Template = Channel.make("users.:user", { payload: Schema.String })
const long = (bytes: number) => "x".repeat(bytes)
const headers = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, n) => [`h${n}`, ""]))
const limit = 10_000

type Attempt = Effect.Effect<unknown, unknown, Rotif.Services>
const publish = (options: Publisher.PublishOptions, payload = "a"): Attempt => Publisher.publish(Text, payload, options)
/** As a program without types may call it. */
const inTemplate = (params: object): Attempt =>
  Publisher.publish(Template, "a", { params: params as { readonly user: string } })
const subscribe = (options: object): Attempt =>
  Effect.scoped(Subscription.make(Text, { group: "g", handler: () => Effect.void, ...options }))

/** Inputs: a value just within the limit, one just beyond, and the tag of the error. */
const rows: ReadonlyArray<readonly [what: string, within: Attempt, beyond: Attempt, tag: string]> = [
  ["payload", publish({}, long(limit - 2)), publish({}, long(limit - 1)), "PayloadTooLarge"],
  [
    "bytes of headers",
    publish({ headers: { h: long(limit - 4) } }),
    publish({ headers: { h: long(limit - 3) } }),
    "PayloadTooLarge"
  ],
  [
    "number of headers",
    publish({ headers: headers(256) }),
    publish({ headers: headers(257) }),
    "InvalidPublishOptions"
  ],
  [
    "params",
    Publisher.publish(Template, "a", { params: { user: long(limit - 7) } }),
    Publisher.publish(Template, "a", { params: { user: long(limit - 6) } }),
    "PayloadTooLarge"
  ],
  ["params that are missing", inTemplate({ user: "u" }), inTemplate({}), "InvalidParams"],
  [
    "params that the template has not",
    inTemplate({ user: "u" }),
    inTemplate({ user: "u", more: "x" }),
    "InvalidParams"
  ],
  ["params that are empty", inTemplate({ user: "u" }), inTemplate({ user: "" }), "InvalidParams"],
  ["id", publish({ id: long(512) }), publish({ id: long(513) }), "InvalidPublishOptions"],
  [
    "throttle key",
    publish({ throttle: { key: long(512), window: 1000 } }),
    publish({ throttle: { key: long(513), window: 1000 } }),
    "InvalidPublishOptions"
  ],
  [
    "debounce key",
    publish({ debounce: { key: long(500), delay: 1000 } }),
    publish({ debounce: { key: long(501), delay: 1000 } }),
    "InvalidPublishOptions"
  ],
  ["group", subscribe({ group: long(1024) }), subscribe({ group: long(1025) }), "InvalidSubscription"],
  ["consumer", subscribe({ consumer: long(1024) }), subscribe({ consumer: long(1025) }), "InvalidSubscription"],
  [
    "deduplication key",
    Deduplication.once(long(1024), "1 hour", Effect.void),
    Deduplication.once(long(1025), "1 hour", Effect.void),
    "InvalidKey"
  ],
  ["broadcast", Broadcast.publish(Text, long(limit - 2)), Broadcast.publish(Text, long(limit - 1)), "PayloadTooLarge"],
  [
    "headers of a broadcast",
    Broadcast.publish(Text, "a", { headers: headers(256) }),
    Broadcast.publish(Text, "a", { headers: headers(257) }),
    "InvalidPublishOptions"
  ],
  [
    "key of a recurring message",
    Scheduler.recurring(long(400), { every: 1000 }, Text, "a"),
    Scheduler.recurring(long(401), { every: 1000 }, Text, "a"),
    "InvalidSchedule"
  ],
  [
    "recurring message",
    Scheduler.recurring("k", { every: 1000 }, Text, long(limit - 2)),
    Scheduler.recurring("k", { every: 1000 }, Text, long(limit - 1)),
    "PayloadTooLarge"
  ],
  [
    "ticks to catch up with",
    Scheduler.recurring("k", { every: 1000 }, Text, "a", { catchUp: { all: 1000 } }),
    Scheduler.recurring("k", { every: 1000 }, Text, "a", { catchUp: { all: 1001 } }),
    "InvalidSchedule"
  ]
]

const tagOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Option.match(Exit.findErrorOption(exit), {
    onNone: () => "none",
    onSome: (error) => (error as { readonly _tag?: unknown })._tag
  })

describe("limits", () => {
  it.effect.each(rows)("of what comes in: %s", ([, within, beyond, tag]) =>
    Effect.gen(function*() {
      assert.strictEqual(tagOf(yield* Effect.exit(beyond)), tag)
      const broker = yield* Broker.Broker
      assert.deepStrictEqual((yield* broker.info({ _tag: "Pattern", pattern: "**" })).channels, [])
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(within)))
    }).pipe(Effect.provide(Rotif.layerMemoryWith({ maxPayloadBytes: limit }))))

  it("of names of channels and patterns", () => {
    assert.strictEqual(Channel.checkName(long(1024), "name")._tag, "Success")
    assert.strictEqual(Channel.checkName(long(1025), "name")._tag, "Failure")
    assert.strictEqual(Channel.checkName(Array.from({ length: 64 }, () => "*").join("."), "pattern")._tag, "Success")
    assert.strictEqual(Channel.checkName(Array.from({ length: 65 }, () => "*").join("."), "pattern")._tag, "Failure")
  })

  it.effect("of the operations and keys of a transaction", () =>
    Effect.gen(function*() {
      const seen = yield* Queue.unbounded<unknown>()
      yield* Subscription.make(Text, {
        group: "g",
        transactional: true,
        handler: Effect.fnUntraced(function*() {
          const key = yield* Transaction.key("k")
          const fields = yield* Transaction.key("h")
          yield* Queue.offer(seen, tagOf(yield* Effect.exit(Transaction.set(key + long(4096), ""))))
          yield* Queue.offer(seen, tagOf(yield* Effect.exit(Transaction.hset(fields, headers(1001)))))
          yield* Queue.offer(seen, tagOf(yield* Effect.exit(Transaction.hset(fields, headers(1000)))))
          for (let n = 1; n < 500; n++) yield* Effect.orDie(Transaction.set(key, ""))
          yield* Queue.offer(seen, tagOf(yield* Effect.exit(Transaction.set(key, ""))))
        })
      })
      yield* Publisher.publish(Text, "a")
      assert.deepStrictEqual(yield* Queue.takeN(seen, 4), ["KeyRefused", "KeyRefused", "none", "TransactionTooLarge"])
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))

  it.effect("of the keys of exactlyOnce", () =>
    Effect.gen(function*() {
      const handled = yield* Queue.unbounded<string>()
      const dead = yield* Queue.unbounded<string | undefined>()
      yield* DeadLetters.subscribe(Text, { handler: ({ failure }) => Queue.offer(dead, failure.errorTag) })
      yield* Subscription.make(Text, {
        group: "g",
        maxRetries: 0,
        exactlyOnce: { key: ({ payload }) => payload },
        handler: ({ payload }) => Queue.offer(handled, payload)
      })
      yield* Publisher.publish(Text, long(513))
      assert.strictEqual(yield* Queue.take(dead), "InvalidOnceKey")
      yield* Publisher.publish(Text, long(512))
      assert.strictEqual(yield* Queue.take(handled), long(512))
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))

  it.effect("of stored failures: a huge error is cut", () =>
    Effect.gen(function*() {
      const dead = yield* Queue.unbounded<void>()
      class Huge extends Error {
        readonly _tag = long(1_000_000)
      }
      yield* DeadLetters.subscribe(Text, { handler: () => Queue.offer(dead, undefined) })
      yield* Subscription.make(Text, {
        group: "g",
        maxRetries: 0,
        handler: () => Effect.fail(new Huge(long(10_000_000)))
      })
      yield* Publisher.publish(Text, "a")
      yield* Queue.take(dead)
      const [letter] = (yield* DeadLetters.list()).letters
      assert.isAtMost(letter!.failure.errorTag!.length, 256)
      assert.isAtMost(letter!.failure.message.length, 1024)
      assert.isAtMost(letter!.failure.cause!.length, 4096)
      assert.isAbove(letter!.failure.message.length, 1000)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory)))
})
