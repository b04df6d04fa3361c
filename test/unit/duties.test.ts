/** The background duties leave nothing behind while the backend fails. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Broker } from "rotif"
import * as Promoter from "../../src/duties/promoter.ts"
import { Heartbeat } from "../../src/internal/heartbeat.ts"
import * as Ticker from "../../src/duties/ticker.ts"
import { supervise } from "../../src/internal/supervise.ts"

/** A broker that is unavailable: every operation fails, and listeners are counted. */
const away = () => {
  const counts = { looks: 0, listening: 0, most: 0 }
  const listen = Effect.acquireUseRelease(
    Effect.sync(() => {
      counts.most = Math.max(counts.most, ++counts.listening)
    }),
    () => Effect.never,
    () =>
      Effect.sync(() => {
        counts.listening--
      })
  )
  const look = Effect.suspend(() => {
    counts.looks++
    return Effect.fail(new Broker.BrokerError({ reason: "Unavailable", operation: "look", message: "away" }))
  })
  const broker = {
    promote: () => look,
    awaitEarlier: () => listen,
    recurring: { due: () => look, awaitChange: () => listen }
  } as unknown as Broker.Broker["Service"]
  return { broker, counts }
}

describe("the background duties", () => {
  it.effect.each([["the promoter", Promoter.run], ["the ticker", Ticker.run]] as const)(
    "%s listens once, however often its look fails, and no more when it ends",
    ([, run]) =>
      Effect.gen(function*() {
        const { broker, counts } = away()
        const duty = yield* Effect.forkChild(run(broker, 0, 30_000, new Heartbeat("duty", 30_000, () => 0, true)), {
          startImmediately: true
        })
        yield* TestClock.adjust("2 minutes")
        assert.isAtLeast(counts.looks, 20)
        assert.strictEqual(counts.most, 1)
        yield* Fiber.interrupt(duty)
        assert.strictEqual(counts.listening, 0)
      })
  )

  it.effect("an operation that has waited for the backend goes on at once when that is back", () =>
    Effect.gen(function*() {
      let attempts = 0
      // As a command does that waits for a connection.
      const body = Effect.suspend(() => {
        attempts++
        return Effect.andThen(
          Effect.sleep("5 seconds"),
          Effect.fail(new Broker.BrokerError({ reason: "Unavailable", operation: "look", message: "away" }))
        )
      })
      const loop = yield* Effect.forkChild(supervise("waiting", body), { startImmediately: true })
      for (let n = 1; n <= 20; n++) {
        assert.strictEqual(attempts, n)
        yield* TestClock.adjust("5 seconds")
        yield* TestClock.adjust("10 millis")
      }
      yield* Fiber.interrupt(loop)
    }))
})
