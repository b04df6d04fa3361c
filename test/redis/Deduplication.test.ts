/** `Deduplication.once` when the connection fails: a real private server behind a proxy that goes silent, or loses an answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { Deduplication, Redis } from "rotif"
import * as RedisServer from "../fixtures/RedisServer.ts"
import * as TcpProxy from "../fixtures/TcpProxy.ts"

const leaseMillis = 1_000

/** A store of its own for each caller. */
const storeAt = (url: string, commandTimeout = 5_000) =>
  Deduplication.layerRedis({ prefix: "d" }).pipe(Layer.provide(Redis.layer({ url, commandTimeout })))

const worlds = Effect.gen(function*() {
  const server = yield* RedisServer.make()
  return { server, proxy: yield* TcpProxy.make(server) }
})

const now = () => performance.now()

/** An effect that tells when it began and ended, however it ended. */
const watched = () => {
  const spans: Array<{ from: number; to: number }> = []
  const effect = (millis: number | undefined) =>
    Effect.suspend(() => {
      const span = { from: now(), to: Infinity }
      spans.push(span)
      return Effect.onExit(
        millis === undefined ? Effect.never : Effect.sleep(millis),
        () => Effect.sync(() => void (span.to = now()))
      )
    })
  return { spans, effect }
}

/** Asks until the key is free. */
const insist = <A>(attempt: Effect.Effect<A, { readonly _tag: string }, Deduplication.Deduplication>) =>
  Effect.retry(Effect.tapError(attempt, () => Effect.sleep(5)), { while: ({ _tag }) => _tag === "InProgress" })

describe("Deduplication.once on a connection that fails", () => {
  for (const fault of ["pause", "stall"] as const) {
    it.live(
      `is interrupted before its lease ends and another caller begins, when the connection goes silent (${fault})`,
      () =>
        Effect.gen(function*() {
          const { proxy, server } = yield* worlds
          const { effect, spans } = watched()
          const attempt = (millis: number | undefined) =>
            Deduplication.once("k", "1 hour", effect(millis), { lease: leaseMillis })
          const first = yield* Effect.gen(function*() {
            const running = yield* Effect.forkChild(Effect.exit(attempt(undefined)))
            while (spans.length === 0) yield* Effect.sleep(1)
            // It has renewed by then.
            yield* Effect.sleep(leaseMillis * 1.5)
            const silentAt = now()
            yield* proxy[fault]
            const second = yield* Effect.provide(insist(attempt(10)), storeAt(server.url))
            assert.strictEqual(second._tag, "Done")
            const exit = yield* Fiber.join(running)
            const told = now() - silentAt
            yield* proxy.resume
            return { exit, told }
          }).pipe(Effect.provide(storeAt(proxy.url)))
          const { exit, told } = first
          assert.isTrue(Exit.isFailure(exit))
          assert.instanceOf(Effect.runSync(Effect.flip(exit as Exit.Exit<never, unknown>)), Deduplication.KeyLost)
          assert.lengthOf(spans, 2)
          // Never two at a time.
          assert.isAtMost(spans[0]!.to, spans[1]!.from)
          // Nor did it wait for the connection to be given up.
          assert.isBelow(told, leaseMillis * 2)
        }),
      20_000
    )
  }

  it.live("does not begin when the answer came after its lease, and begins anew", () =>
    Effect.gen(function*() {
      const { proxy } = yield* worlds
      const lease = 200
      yield* Effect.gen(function*() {
        // The script is known from then on, and the connection is there.
        yield* Deduplication.once("other", "1 hour", Effect.void)
        yield* proxy.delay(lease * 1.5)
        const { effect, spans } = watched()
        const slow = yield* Effect.flip(Deduplication.once("k", "1 hour", effect(1), { lease }))
        assert.strictEqual(slow._tag, "BrokerError")
        assert.include(slow.message, "longer lease")
        assert.lengthOf(spans, 0)
        const running = yield* Effect.forkChild(Deduplication.once("l", "1 hour", effect(1), { lease }))
        yield* Effect.sleep(lease)
        yield* proxy.delay(0)
        assert.strictEqual((yield* Fiber.join(running))._tag, "Done")
        assert.lengthOf(spans, 1)
      }).pipe(Effect.provide(storeAt(proxy.url)))
    }), 20_000)

  it.live("goes on over a renewal whose connection was cut", () =>
    Effect.gen(function*() {
      const { proxy } = yield* worlds
      yield* Effect.gen(function*() {
        const running = yield* Effect.forkChild(
          Deduplication.once("k", "1 hour", Effect.sleep(leaseMillis * 2), { lease: leaseMillis })
        )
        for (let i = 0; i < 5; i++) {
          yield* Effect.sleep(leaseMillis * 0.33)
          yield* proxy.cut
        }
        assert.strictEqual((yield* Fiber.join(running))._tag, "Done")
      }).pipe(Effect.provide(storeAt(proxy.url)))
    }), 20_000)

  for (const [what, isTaken] of [["free", false], ["another's", true]] as const) {
    it.live(
      `is done when its answer was lost, though its time is over and the key ${what} when it asks again`,
      () =>
        Effect.gen(function*() {
          const { proxy, server } = yield* worlds
          yield* Effect.gen(function*() {
            // What is lost first is else only that the server does not know the script.
            yield* Deduplication.once("other", "1 hour", Effect.void)
            const dropped = yield* proxy.dropReplyOnce((request) => request.includes("finish"))
            const running = yield* Effect.forkChild(
              Deduplication.once("k", 50, Effect.succeed(1), { lease: leaseMillis })
            )
            yield* dropped
            yield* proxy.refuse
            yield* Effect.sleep(100)
            const other = yield* Effect.forkChild(
              isTaken
                ? Effect.provide(Deduplication.once("k", "1 hour", Effect.sleep(300)), storeAt(server.url))
                : Effect.void
            )
            yield* Effect.sleep(100)
            yield* proxy.accept
            assert.deepStrictEqual(yield* Fiber.join(running), { _tag: "Done", value: 1 })
            yield* Fiber.join(other)
          }).pipe(Effect.provide(storeAt(proxy.url)))
        }),
      20_000
    )
  }
})
