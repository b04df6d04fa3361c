/** Code of the user that works on its own, outside of a handler, is given up after 30 seconds. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Latch, Queue, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Broadcast, Channel, DeadLetters, Publisher, Rotif, Subscription } from "rotif"
import * as LogLines from "../fixtures/logLines.ts"

const Text = Channel.make("texts", { payload: Schema.String })

describe("code of the user that never answers", () => {
  it.effect("an archive is interrupted, which is logged once; its letters stay, and are offered to it again", () => {
    const log = LogLines.make()
    const called: Array<number> = []
    let interrupted = 0
    return Effect.gen(function*() {
      const dead = yield* Deferred.make<void>()
      yield* Subscription.make(Text, {
        maxRetries: 0,
        handler: () => Effect.fail("no"),
        reports: () => Deferred.succeed(dead, undefined)
      })
      yield* Publisher.publish(Text, "x")
      yield* Deferred.await(dead)
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual([called, interrupted], [[1], 0])
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(interrupted, 1)
      assert.lengthOf(
        log.find("Error", "the archive of dead letters refused (once)", "has not answered for 30 seconds"),
        1
      )
      yield* TestClock.adjust("5 minutes")
      assert.isAbove(interrupted, 1)
      assert.strictEqual(yield* DeadLetters.count(), 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(Rotif.layerMemoryWith({
        deadLetters: {
          maxAge: "10 seconds",
          interval: "1 second",
          archive: (letters) =>
            Effect.andThen(Effect.sync(() => called.push(letters.length)), Effect.never).pipe(
              Effect.onInterrupt(() => Effect.sync(() => interrupted++))
            )
        }
      })),
      Effect.provide(log.layer)
    )
  })

  it.effect("onGap is interrupted, which is logged, and the messages behind the gap are handled", () => {
    const log = LogLines.make()
    return Effect.gen(function*() {
      const gate = yield* Latch.make()
      const gaps = yield* Queue.unbounded<Broadcast.Gap>()
      const seen = yield* Queue.unbounded<string>()
      yield* Broadcast.listen(Text, {
        capacity: 1,
        onGap: (gap) => Effect.andThen(Queue.offer(gaps, gap), Effect.never),
        handler: ({ payload }) => Effect.andThen(Queue.offer(seen, payload), gate.await)
      })
      yield* Broadcast.publish(Text, "1")
      assert.strictEqual(yield* Queue.take(seen), "1")
      yield* Broadcast.publishAll(Text, ["2", "3"])
      yield* gate.open
      assert.strictEqual(yield* Queue.take(seen), "2")
      assert.deepStrictEqual(yield* Queue.take(gaps), { reason: "overflow", dropped: 1 })
      yield* Broadcast.publish(Text, "4")
      yield* TestClock.adjust("29 seconds")
      assert.strictEqual(yield* Queue.size(seen), 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Queue.take(seen), "4")
      assert.lengthOf(log.find("Error", "\"texts\"", "onGap has not answered for 30 seconds"), 1)
    }).pipe(Effect.scoped, Effect.provide(Rotif.layerMemory), Effect.provide(log.layer))
  })
})
