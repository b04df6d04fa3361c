/** Settings that the consumers of a group or of a program should share: which one applies when they differ, and the warning about it. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Queue, Schema, Scope } from "effect"
import { Broker, Channel, Publisher, Subscription } from "rotif"
import * as LogLines from "../fixtures/logLines.ts"
import { type Backend, type Body, listen, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })

const join = Effect.fnUntraced(function*(consumer: string, leaseMillis: number) {
  const broker = yield* Broker.Broker
  const selector = Channel.selector(Text)
  return yield* broker.join({
    shard: broker.shardsOf(selector)[0]!,
    group: "g",
    consumer,
    selector,
    start: { _tag: "Earliest" },
    leaseMillis,
    maxCrashes: 3
  })
})

export const agreementSuite = (backend: Backend): void => {
  const { soon } = backend
  type Log = ReturnType<typeof LogLines.make>
  const test = (name: string, body: (log: Log) => Body) =>
    it[backend.clock](name, () => {
      const log = LogLines.make()
      return body(log).pipe(
        Effect.scoped,
        Effect.provide(backend.layer({ drainTimeout: "5 seconds" })),
        Effect.provide(log.layer)
      )
    })

  describe("consumers of one group that are set to different things", () => {
    test("two leases: messages are taken over after the longer one, and each consumer warns once", (log) =>
      Effect.gen(function*() {
        const longest = 1_500
        yield* Publisher.publishAll(Text, ["a", "b"])
        const long = yield* join("long", longest)
        yield* long.claim(1)
        const short = yield* join("short", 300)
        yield* short.claim(1)
        const since = yield* Clock.currentTimeMillis
        let held = 0
        while (held < 1) held += (yield* soon(long.read(1, 1_000))).length
        while (held < 2) held += (yield* soon(short.read(1, 1_000))).length
        const { seen, subscription } = yield* listen(Text, { group: "g", lease: 300, concurrency: 2 })
        // The same holds for the messages of the consumer with the shorter lease.
        yield* soon(Queue.take(seen))
        assert.isAtLeast((yield* Clock.currentTimeMillis) - since, longest - 20)
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.lengthOf(log.find("Warn", "group \"g\"", "300ms here", "1s 500ms in another"), 1)
      }))

    test("messages of a consumer that left are taken over after its own, longer lease", () =>
      Effect.gen(function*() {
        const longest = 1_500
        yield* Publisher.publish(Text, "a")
        const scope = yield* Scope.make()
        const long = yield* Scope.provide(join("long", longest), scope)
        yield* long.claim(1)
        const since = yield* Clock.currentTimeMillis
        let held = 0
        while (held < 1) held += (yield* soon(long.read(1, 1_000))).length
        yield* Scope.close(scope, Exit.void)
        const { seen, subscription } = yield* listen(Text, { group: "g", lease: 300 })
        yield* soon(Queue.take(seen))
        assert.isAtLeast((yield* Clock.currentTimeMillis) - since, longest - 20)
        yield* soon(subscription.drain)
      }))

    test("a paused consumer keeps its lease known: the others leave it the messages that it renews", () =>
      Effect.gen(function*() {
        const long = 1_500
        const gate = yield* Deferred.make<void>()
        const first = yield* listen(Text, {
          group: "g",
          lease: long,
          prefetch: 0,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(first.seen))
        // While it is paused it also claims no expired messages.
        yield* first.subscription.pause
        const second = yield* listen(Text, { group: "g", lease: 300 })
        yield* backend.advance(6 * long)
        assert.strictEqual(yield* Queue.size(second.seen), 0)
        assert.deepInclude(yield* first.subscription.stats, { lostLeases: 0, held: 1 })
        yield* Deferred.succeed(gate, undefined)
        yield* soon(first.subscription.drain)
      }))

    test("differing exactlyOnce and maxCrashes are warned of too, and equal settings are not", (log) =>
      Effect.gen(function*() {
        const options = { group: "g", lease: 300, maxCrashes: 3 }
        yield* listen(Text, options)
        yield* listen(Text, options)
        assert.deepStrictEqual(log.find("Warn", "group \"g\""), [])
        yield* listen(Text, { ...options, exactlyOnce: { key: ({ payload }) => payload, ttl: "1 hour" } })
        assert.lengthOf(log.find("Warn", "group \"g\"", "exactlyOnce here and not in another one"), 1)
        yield* listen(Text, { ...options, maxCrashes: 5 })
        assert.lengthOf(log.find("Warn", "group \"g\"", "maxCrashes 5 here and 3 in another one"), 1)
      }))
  })

  describe("Subscription without a group", () => {
    test("two to one channel in one program are warned of once, with the remedy", (log) =>
      Effect.gen(function*() {
        const quiet = { handler: () => Effect.void }
        const first = yield* Subscription.make(Text, quiet)
        yield* Subscription.make(Other, quiet)
        yield* Subscription.make(Text, { ...quiet, group: "another" })
        yield* Subscription.make(Text, { ...quiet, group: "another" })
        // Two subscriptions in sequence are not two at once.
        yield* soon(first.drain)
        yield* Subscription.make(Text, quiet)
        assert.deepStrictEqual(log.find("Warn", "no group of their own"), [])
        yield* Subscription.make(Text, quiet)
        yield* until(backend, Effect.sync(() => log.find("Warn", "no group of their own").length > 0))
        yield* Subscription.make(Text, quiet)
        assert.lengthOf(log.find("Warn", "\"texts\"", "no group of their own", "Give each a group"), 1)
      }))
  })
}
