/** Health when Redis fails: reports in bounded time, and recovery. */
import { assert, describe, it } from "@effect/vitest"
import type { HttpServer } from "effect/http"
import type { Scope } from "effect"
import { Deferred, Effect, Layer, References, Schema } from "effect"
import { Broker, Channel, Health, Publisher, Rotif } from "rotif"
import { ask, healthServer } from "../fixtures/healthServer.ts"
import * as RedisServer from "../fixtures/RedisServer.ts"
import { listen, liveBackend } from "../contract/kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const { soon } = liveBackend("Redis", () => Layer.empty as never)

const until = <E, R>(check: Effect.Effect<boolean, E, R>) =>
  soon(Effect.repeat(Effect.delay(check, 20), { until: (done) => done }))

const kinds = (report: Partial<Health.Report>) => [...new Set(report.reasons!.map(({ kind }) => kind))].sort()

/** A test with a server of its own, and the routes. */
const faulty = (
  name: string,
  options: { readonly rotif?: Rotif.Options; readonly config?: RedisServer.Config },
  body: (
    server: RedisServer.RedisServer
  ) => Effect.Effect<unknown, unknown, Rotif.Services | HttpServer.HttpServer | Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const server = yield* RedisServer.make(options.config)
      const layer = Rotif.layer({
        url: server.url,
        prefix: "h",
        commandTimeout: 500,
        connectTimeout: 300,
        drainTimeout: "1 second",
        ...options.rotif
      })
      yield* body(server).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(healthServer, layer)))
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None")), 60_000)

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(effect, (value) => [value, performance.now() - from] as const)
  })

const quick = { blockInterval: 100, lease: "2 seconds" } as const
const strict: Rotif.Options = {
  checkInterval: 200,
  trimInterval: 200,
  health: { timeout: 400, latency: 300, staleAfter: 1_500, hungAfter: "10 seconds" }
}

describe("Health on Redis", () => {
  faulty(
    "a server that is gone: not ready, with the reasons, and still live; ready when it is back",
    { rotif: strict, config: { appendonly: "yes" } },
    Effect.fnUntraced(function*(server) {
      yield* listen(Text, quick)
      yield* until(Effect.map(ask("ready"), ({ status }) => status === 200))
      yield* server.kill
      const [{ body, status }, millis] = yield* elapsed(ask("ready"))
      assert.strictEqual(status, 503)
      assert.isBelow(millis, 3_000)
      assert.deepInclude(body, { status: "unhealthy", isReady: false, isLive: true })
      assert.isUndefined(body.latencyMillis)
      assert.include(kinds(body), "Unreachable")
      assert.deepStrictEqual(yield* ask("live"), { status: 200, body: { isLive: true, reasons: [] } })
      // The loops go on trying, and tell that they do not get anywhere.
      yield* until(Effect.map(Health.check, (report) => {
        const found = kinds(report)
        return found.includes("StaleReader") && found.includes("StaleDuty")
      }))
      assert.strictEqual((yield* ask("live")).status, 200)
      yield* server.restart
      yield* until(Effect.map(ask("ready"), ({ body }) => body.status === "healthy"))
    })
  )

  faulty(
    "a server that is frozen: the answer comes in bounded time",
    { rotif: strict },
    Effect.fnUntraced(function*(server) {
      yield* listen(Text, quick)
      yield* until(Effect.map(ask("ready"), ({ status }) => status === 200))
      yield* server.stop
      for (let i = 0; i < 5; i++) {
        const [{ body, status }, millis] = yield* elapsed(ask("ready"))
        assert.strictEqual(status, 503)
        assert.isBelow(millis, 3_000)
        assert.include(kinds(body), "Unreachable")
        assert.strictEqual((yield* ask("live")).status, 200)
      }
      yield* server.cont
      yield* until(Effect.map(ask("ready"), ({ body }) => body.status === "healthy"))
    })
  )

  faulty(
    "a server that answers late is slow; one that does not tell its counts in time leaves it at that",
    { rotif: { ...strict, health: { timeout: "5 seconds", latency: 50, maxLag: 10 } } },
    Effect.fnUntraced(function*(server) {
      yield* listen(Text, { ...quick, group: "g" })
      const waiting = yield* Deferred.make<void>()
      yield* Effect.forkScoped(Effect.gen(function*() {
        yield* server.stop
        yield* Deferred.succeed(waiting, undefined)
        yield* Effect.sleep(200)
        yield* server.cont
      }))
      yield* Deferred.await(waiting)
      assert.include(kinds(yield* Health.check), "Slow")
      yield* server.command("set", "{h:0}:groups", "in the way")
      const report = yield* Health.check
      assert.deepStrictEqual(kinds(report), ["Unreadable"])
      assert.include(report.reasons[0]!.message, "WRONGTYPE")
      assert.strictEqual(report.status, "degraded")
    })
  )

  faulty(
    "what cannot be done is told, and by whom: a promoter that is refused, a reader that has no stream to read",
    { rotif: strict },
    Effect.fnUntraced(function*(server) {
      yield* listen(Text, { ...quick, group: "g" })
      yield* Publisher.publish(Text, "a", { delay: "1 hour" })
      yield* server.command("set", "{h:0}:waiting", "in the way")
      yield* until(
        Effect.map(
          Health.check,
          ({ reasons, status }) =>
            status === "degraded" && reasons.every(({ kind, subject }) =>
              kind === "StaleDuty" && subject === "promoter"
            ) &&
            reasons.length === 1
        )
      )
      yield* server.command("set", "{h:0}:log:texts", "in the way")
      yield* until(Effect.map(Health.check, ({ reasons, status }) =>
        status === "unhealthy" &&
        reasons.some(({ kind, subject }) => kind === "StaleReader" && subject === "group \"g\" on texts")))
      assert.strictEqual((yield* Health.liveness).isLive, true)
    })
  )

  faulty(
    "a loop that does not come round is not live",
    { rotif: { ...strict, health: { hungAfter: 300 } } },
    Effect.fnUntraced(function*() {
      yield* listen(Text, quick)
      const broker = yield* Broker.Broker
      assert.strictEqual((yield* ask("live")).status, 200)
      // A process that cannot turn its loops cannot answer either, so time has to be taken from them after the fact.
      const from = performance.now()
      while (performance.now() - from < 1_500) broker.shardsOf(Channel.selector(Text))
      const { isLive, reasons } = yield* Health.liveness
      assert.isFalse(isLive)
      assert.isTrue(reasons.every(({ kind }) => kind === "Hung"))
      yield* until(Effect.map(Health.liveness, (answer) => answer.isLive))
    })
  )
})
