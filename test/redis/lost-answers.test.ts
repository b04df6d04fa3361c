/** One publish call stores one message, also when its answer is lost and its proof expires before the next question. */
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Queue, Schema } from "effect"
import { Broker, Channel, Publisher, Rotif, Scheduler } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"
import { until } from "../faults/Run.ts"
import { listen } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Short = Channel.make("short", { payload: Schema.String, limits: { maxLength: 10 } })
const prefix = "lost"
const key = (name: string) => `{${prefix}:0}:${name}`
const canary = (request: Buffer) => request.includes("canary")

interface Place {
  readonly server: RedisServer.RedisServer
  readonly proxy: TcpProxy.TcpProxy
  /** Does it in a program that reaches the server directly. */
  readonly elsewhere: <A, E>(effect: Effect.Effect<A, E, Rotif.Services | Scope.Scope>) => Effect.Effect<A, unknown>
  /** The payloads in the log of a channel. */
  readonly stored: (channel?: string) => Effect.Effect<ReadonlyArray<string>, RedisServer.RedisServerError>
}

const test = (
  name: string,
  body: (place: Place) => Effect.Effect<unknown, unknown, Rotif.Services | Scope.Scope>,
  options?: { readonly graceMillis?: number; readonly commandTimeout?: number }
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make()
      const proxy = yield* TcpProxy.make(server)
      const common = { prefix, connectTimeout: 300, trimInterval: 20, ...options }
      yield* body({
        server,
        proxy,
        elsewhere: (effect) => effect.pipe(Effect.scoped, Effect.provide(Rotif.layer({ url: server.url, ...common }))),
        stored: (channel = "texts") =>
          Effect.map(
            server.command("xrange", key(`log:${channel}`), "-", "+"),
            (entries) =>
              (entries as ReadonlyArray<readonly [string, ReadonlyArray<string>]>)
                .map(([, fields]) => JSON.parse(fields.at(-1)!) as string)
          )
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Rotif.layer({ url: proxy.url, commandTimeout: 300, delayed: false, ...common, trimInterval: "1 hour" })
        )
      )
    }), 30_000)

/** Loses the answer of the publish, and leaves it undecided. */
const lose = (
  { proxy }: Place,
  channel: typeof Text | typeof Short,
  options?: Publisher.PublishOptions
): Effect.Effect<Publisher.PublishUncertain, unknown, Publisher.Publisher> =>
  Effect.gen(function*() {
    const dropped = yield* proxy.dropReplyOnce(canary)
    yield* proxy.refuse
    const error = yield* Effect.flip(Publisher.publish(channel, "canary", options))
    yield* dropped
    assert.instanceOf(error, Publisher.PublishUncertain)
    assert.isFalse(error.isLasting)
    return error
  })

/** Publishes again until it is known what became of it: Redis is back, and the connection comes a moment later. */
const again = (
  channel: typeof Text | typeof Short,
  options: Publisher.PublishOptions,
  text = "canary"
): Effect.Effect<Publisher.Receipt, Publisher.StoreError | Publisher.RequestError, Publisher.Publisher> =>
  Publisher.publish(channel, text, options).pipe(
    Effect.catchIf(
      (error) => error._tag === "PublishUncertain" && !error.isLasting,
      () => again(channel, options, text)
    )
  )

describe("a publish whose answer was lost, repeated with its id", () => {
  for (
    const [what, options] of [
      ["a throttle window", { throttle: { key: "k", window: 100 } }],
      ["a deduplication window", { id: "mine", deduplicate: { window: 100 } }]
    ] as const
  ) {
    test(`is stored once when ${what} is over by then, and another message has opened the next`, (place) =>
      Effect.gen(function*() {
        const { elsewhere, proxy, server, stored } = place
        yield* Publisher.publish(Text, "first", { throttle: { key: "other", window: 100 } })
        const { id } = yield* lose(place, Text, options)
        const window = key(`seen:texts:${"id" in options ? "imine" : "tk"}`)
        yield* until("the window is over", Effect.map(server.command("exists", window), (found) => found === 0))
        const other = yield* elsewhere(Publisher.publish(Text, "other", options))
        assert.strictEqual(other._tag, "Published")
        yield* proxy.accept
        const receipt = yield* again(Text, { ...options, id })
        assert.deepInclude(receipt, { _tag: "Published", id })
        assert.deepStrictEqual(yield* stored(), ["first", "canary", "other"])
        assert.notStrictEqual(receipt.position, other.position)
      }))
  }

  test("is stored once when its window is over, and it was handled and removed", (place) =>
    Effect.gen(function*() {
      const { elsewhere, proxy, server, stored } = place
      const throttle = { key: "k", window: 100 }
      yield* Publisher.publish(Text, "first", { throttle: { key: "other", window: 100 } })
      const { id } = yield* lose(place, Text, { throttle })
      yield* elsewhere(Effect.gen(function*() {
        const { seen } = yield* listen(Text)
        yield* Queue.takeN(seen, 2)
        yield* until("removed", Effect.map(stored(), (left) => left.length === 0))
      }))
      yield* until(
        "the window is over",
        Effect.map(server.command("exists", key("seen:texts:tk")), (found) => found === 0)
      )
      yield* proxy.accept
      assert.deepInclude(yield* again(Text, { throttle, id }), { _tag: "Published", id })
      assert.deepStrictEqual(yield* stored(), [])
    }), { graceMillis: 20 })

  test("debounce: is not stored again when it was delivered meanwhile", (place) =>
    Effect.gen(function*() {
      const { elsewhere, proxy, stored } = place
      const debounce = { key: "k", delay: 50 }
      yield* Publisher.publish(Text, "first", { delay: 1 })
      const dropped = yield* proxy.dropReplyOnce(canary)
      yield* proxy.refuse
      assert.instanceOf(yield* Effect.flip(Publisher.publish(Text, "canary", { debounce })), Publisher.PublishUncertain)
      yield* dropped
      yield* elsewhere(until("promoted", Effect.map(stored(), (found) => found.length === 2)))
      yield* proxy.accept
      assert.strictEqual((yield* again(Text, { debounce }))._tag, "Scheduled")
      assert.strictEqual(yield* Scheduler.count(), 0)
      assert.deepStrictEqual(yield* stored(), ["first", "canary"])
    }))

  test("debounce: does not replace a later message", (place) =>
    Effect.gen(function*() {
      const { elsewhere, proxy } = place
      const debounce = { key: "k", delay: "1 hour" } as const
      yield* Publisher.publish(Text, "first", { delay: "1 hour" })
      yield* lose(place, Text, { debounce })
      yield* elsewhere(Publisher.publish(Text, "later", { debounce }))
      yield* proxy.accept
      assert.strictEqual((yield* again(Text, { debounce }))._tag, "Scheduled")
      const { messages } = yield* Scheduler.list()
      assert.deepStrictEqual(messages.map(({ payload }) => payload), ["\"first\"", "\"later\""])
    }))

  for (const what of ["cancelled", "delivered now", "promoted, handled and removed"] as const) {
    test(`a scheduled one is not stored again when it was ${what} meanwhile`, (place) =>
      Effect.gen(function*() {
        const { elsewhere, proxy, stored } = place
        const delay = what.startsWith("promoted") ? 50 : "1 hour"
        yield* Publisher.publish(Text, "first", { delay: "1 hour" })
        const { id } = yield* lose(place, Text, { delay })
        yield* elsewhere(Effect.gen(function*() {
          if (what === "cancelled") return assert.isTrue(yield* Scheduler.cancel(Text, id))
          if (what === "delivered now") assert.isTrue(yield* Scheduler.deliverNow(Text, id))
          const { seen } = yield* listen(Text)
          assert.strictEqual((yield* Queue.take(seen)).id, id)
          yield* until("removed", Effect.map(stored(), (left) => left.length === 0))
        }))
        yield* proxy.accept
        assert.deepInclude(yield* again(Text, { id, delay }), { _tag: "Scheduled", id })
        assert.strictEqual(yield* Scheduler.count(), 1)
        assert.deepStrictEqual(yield* stored(), [])
      }), { graceMillis: 20 })
  }

  test("one of many messages scheduled at once is recognised", (place) =>
    Effect.gen(function*() {
      const { elsewhere, proxy } = place
      yield* Publisher.publish(Text, "first", { delay: "1 hour", id: "taken" })
      yield* proxy.dropReplyOnce(canary)
      yield* proxy.refuse
      const error = yield* Effect.flip(
        Publisher.publishAll(
          Text,
          ["canary", "b", "c"],
          (text) => ({ id: text === "b" ? "taken" : text, delay: "1 hour" })
        )
      )
      assert.instanceOf(error, Publisher.PublishIncomplete)
      for (const outcome of error.outcomes) assert.instanceOf(outcome, Publisher.PublishUncertain)
      assert.isTrue(yield* elsewhere(Scheduler.cancel(Text, "c")))
      yield* proxy.accept
      const tags = yield* Effect.forEach(
        ["canary", "taken", "c"],
        (id) => Effect.map(again(Text, { id, delay: "1 hour" }), ({ _tag }) => _tag)
      )
      assert.deepStrictEqual(tags, ["Scheduled", "Duplicate", "Scheduled"])
      assert.strictEqual(yield* Scheduler.count(), 2)
    }))

  test("is PublishUncertain for good, not stored again, when a limit may have removed it", (place) =>
    Effect.gen(function*() {
      const { elsewhere, proxy, stored } = place
      yield* Publisher.publish(Short, "first")
      const { id } = yield* lose(place, Short)
      // Trimming is by whole nodes of a stream.
      yield* elsewhere(Effect.gen(function*() {
        yield* Publisher.publishAll(Short, Array.from({ length: 300 }, (_, i) => String(i)))
        yield* (yield* Broker.Broker).trim(0)
      }))
      yield* proxy.accept
      for (let i = 0; i < 2; i++) {
        const error = yield* Effect.flip(again(Short, { id }))
        assert.instanceOf(error, Publisher.PublishUncertain)
        assert.isTrue(error.isLasting)
      }
      assert.notInclude(yield* stored("short"), "canary")
    }))

  test(
    "is PublishUncertain for good, not stored again, when it was handled and removed",
    (place) =>
      Effect.gen(function*() {
        const { elsewhere, proxy, stored } = place
        yield* Publisher.publish(Text, "first")
        const { id } = yield* lose(place, Text)
        yield* elsewhere(Effect.gen(function*() {
          const { seen } = yield* listen(Text)
          yield* Queue.takeN(seen, 2)
          yield* until("removed", Effect.map(stored(), (left) => left.length === 0))
        }))
        yield* proxy.accept
        const error = yield* Effect.flip(again(Text, { id }))
        assert.instanceOf(error, Publisher.PublishUncertain)
        assert.isTrue(error.isLasting)
        assert.deepStrictEqual(yield* stored(), [])
      }),
    { graceMillis: 20 }
  )

  test(
    "is stored, where it never was, though what came before it was handled and removed",
    (place) =>
      Effect.gen(function*() {
        const { elsewhere, proxy, stored } = place
        yield* Publisher.publish(Text, "first")
        yield* elsewhere(Effect.gen(function*() {
          const { seen } = yield* listen(Text)
          yield* Queue.take(seen)
          yield* until("removed", Effect.map(stored(), (left) => left.length === 0))
        }))
        yield* proxy.cutRequestOnce(20, canary)
        yield* proxy.refuse
        const error = yield* Effect.flip(Publisher.publish(Text, "canary"))
        assert.instanceOf(error, Publisher.PublishUncertain)
        yield* proxy.accept
        const receipt = yield* again(Text, { id: error.id })
        assert.strictEqual(receipt._tag, "Published")
        assert.deepStrictEqual(yield* stored(), ["canary"])
      }),
    { graceMillis: 20 }
  )

  test("is found where a failover has taken the log back, and the clock is behind", (place) =>
    Effect.gen(function*() {
      const { proxy, server, stored } = place
      yield* Publisher.publish(Text, "first")
      // As on a master whose clock is ahead, of which the next has not got all.
      const ahead = `${Date.now() + 60_000}-0`
      yield* server.command("xadd", key("log:texts"), ahead, "i", "x", "p", "\"lost\"")
      const position = (yield* Publisher.publish(Text, "confirmed")).position!
      const [[at]] = (yield* server.command("xrange", key("log:texts"), "-", "+", "COUNT", 1)) as [[string]]
      yield* server.command("xdel", key("log:texts"), ahead, position)
      yield* server.command("xsetid", key("log:texts"), at)
      const dropped = yield* proxy.dropReplyOnce(canary)
      assert.strictEqual((yield* Publisher.publish(Text, "canary"))._tag, "Published")
      yield* dropped
      assert.deepStrictEqual(yield* stored(), ["first", "canary"])
    }), { commandTimeout: 3000 })
})
