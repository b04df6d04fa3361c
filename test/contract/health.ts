/** Health: each failure is reported with the part of the program that has it. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Queue, Schema } from "effect"
import { Broker, Channel, Health, Publisher } from "rotif"
import { ask, healthServer } from "../fixtures/healthServer.ts"
import { type Backend, listen, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

const kinds = (report: Health.Report) => report.reasons.map(({ kind, status }) => [kind, status])

const healthy = Effect.map(Health.check, ({ status }) => status === "healthy")

export const healthSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Health.check", () => {
    test(
      "is healthy while everything does its work",
      Effect.gen(function*() {
        const { seen, subscription } = yield* listen(Text)
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        const report = yield* Health.check
        assert.deepInclude(report, { status: "healthy", isLive: true, isReady: true, reasons: [] })
        assert.isAtLeast(report.latencyMillis!, 0)
        assert.deepStrictEqual(yield* Health.liveness, { isLive: true, reasons: [] })
        yield* soon(subscription.drain)
        assert.strictEqual((yield* Health.check).status, "healthy")
      })
    )

    test(
      "tells of a handler that is stuck; it is ready as long as others can work",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group: "g",
          concurrency: 2,
          prefetch: 0,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        yield* backend.advance(400)
        const one = yield* Health.check
        assert.deepStrictEqual(kinds(one), [["StuckHandler", "degraded"]])
        assert.deepInclude(one, { status: "degraded", isReady: true, isLive: true })
        assert.strictEqual(one.reasons[0]!.subject, "group \"g\" on texts")
        yield* Publisher.publish(Text, "b")
        yield* soon(Queue.take(seen))
        const both = yield* Health.check
        assert.deepStrictEqual(kinds(both), [["StuckHandler", "unhealthy"]])
        assert.deepInclude(both, { status: "unhealthy", isReady: false, isLive: true })
        yield* Deferred.succeed(gate, undefined)
        yield* until(backend, healthy)
      }),
      { health: { slowHandler: 300 } }
    )

    test(
      "expects nothing of a subscription that is paused, or has taken all it may",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group: "full",
          blockInterval: 10,
          prefetch: 0,
          handler: () => Deferred.await(gate)
        })
        const { subscription } = yield* listen(Text, { group: "paused", blockInterval: 10 })
        yield* subscription.pause
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        yield* backend.advance(1_000)
        assert.deepStrictEqual((yield* Health.check).reasons, [])
        yield* subscription.resume
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual((yield* Health.check).reasons, [])
      }),
      { health: { staleAfter: 500, hungAfter: 500 } }
    )

    test(
      "tells of groups beyond their thresholds",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, {
          group: "g",
          concurrency: 2,
          prefetch: 0,
          handler: () => Deferred.await(gate)
        })
        yield* Publisher.publishAll(Text, ["1", "2"])
        yield* soon(Queue.takeN(seen, 2))
        yield* Publisher.publishAll(Text, ["3", "4", "5"])
        yield* backend.advance(300)
        const report = yield* Health.check
        assert.deepStrictEqual(kinds(report), [["Lag", "degraded"], ["Pending", "degraded"], ["Age", "degraded"]])
        assert.include(report.reasons[0]!.message, "3 messages")
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Queue.takeN(seen, 3))
        yield* until(backend, healthy)
      }),
      { health: { maxLag: 2, maxPending: 1, maxAge: 200 } }
    )

    test(
      "tells of new dead letters, and of none that are old",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { group: "g", maxRetries: 0, handler: () => Effect.fail("no") })
        const die = Effect.fnUntraced(function*(count: number) {
          const { dead } = yield* subscription.stats
          yield* Publisher.publishAll(Text, Array.from({ length: count }, String))
          yield* until(backend, Effect.map(subscription.stats, (now) => now.dead === dead + count))
        })
        yield* die(5)
        assert.strictEqual((yield* Health.check).status, "healthy")
        yield* die(2)
        assert.strictEqual((yield* Health.check).status, "healthy")
        yield* die(1)
        const report = yield* Health.check
        assert.deepStrictEqual(kinds(report), [["DeadLetters", "degraded"]])
        assert.include(report.reasons[0]!.message, "3 new dead letters")
        yield* backend.advance(1_100)
        yield* Health.check
        yield* backend.advance(1_100)
        assert.strictEqual((yield* Health.check).status, "healthy")
      }),
      { health: { deadLetters: { max: 2, within: "1 second" } } }
    )
  })

  describe("Health.layerRoutes", () => {
    test(
      "answer over HTTP: live, ready, and why not",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen } = yield* listen(Text, { group: "g", prefetch: 0, handler: () => Deferred.await(gate) })
        assert.deepStrictEqual(yield* ask("live"), { status: 200, body: { isLive: true, reasons: [] } })
        const ready = yield* ask("ready")
        assert.deepInclude(ready.body, { status: "healthy", isLive: true, isReady: true, reasons: [] })
        assert.strictEqual(ready.status, 200)
        yield* Publisher.publish(Text, "a")
        yield* soon(Queue.take(seen))
        yield* backend.advance(400)
        const stuck = yield* ask("ready")
        assert.strictEqual(stuck.status, 503)
        assert.deepInclude(stuck.body, { status: "unhealthy", isReady: false })
        assert.strictEqual((yield* ask("live")).status, 200)
        yield* Deferred.succeed(gate, undefined)
        yield* until(backend, healthy)
        assert.strictEqual((yield* ask("ready")).status, 200)
      }).pipe(Effect.provide(healthServer)),
      { health: { slowHandler: 300 } }
    )
  })

  describe("Broker.ping", () => {
    test("answers", Effect.flatMap(Broker.Broker, ({ ping }) => ping))
  })
}
