/** `Deduplication.once`: an effect of the program runs once for each key. */
import { assert, describe } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Ref } from "effect"
import { Deduplication } from "rotif"
import { type Backend, freshPrefix, promises, until } from "./kit.ts"

const leaseMillis = 240

export const deduplicationSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  // The store may outlive the test.
  const fresh = () => `${freshPrefix()}:{x}*`

  describe("Deduplication.once", () => {
    test(
      "runs an effect once, and knows it afterwards until the time is over",
      Effect.gen(function*() {
        const key = fresh()
        const runs = yield* Ref.make(0)
        const attempt = Deduplication.once(key, 300, Ref.updateAndGet(runs, (n) => n + 1))
        assert.deepStrictEqual(yield* attempt, { _tag: "Done", value: 1 })
        assert.deepStrictEqual(yield* attempt, { _tag: "Duplicate" })
        assert.deepStrictEqual(yield* Deduplication.once(`${key}2`, 300, Ref.get(runs)), { _tag: "Done", value: 1 })
        yield* backend.advance(350)
        assert.deepStrictEqual(yield* attempt, { _tag: "Done", value: 2 })
      })
    )

    test(
      "lets one of many callers run it; the others are told that it is in progress",
      Effect.gen(function*() {
        const key = fresh()
        const gate = yield* Deferred.make<void>()
        const runs = yield* Ref.make(0)
        const attempt = Deduplication.once(
          key,
          "1 hour",
          Effect.andThen(Ref.update(runs, (n) => n + 1), Deferred.await(gate)),
          { lease: leaseMillis }
        )
        const callers = yield* Effect.forEach(Array.from({ length: 10 }), () => Effect.forkChild(Effect.exit(attempt)))
        yield* until(
          backend,
          Effect.sync(() => callers.filter((fiber) => fiber.pollUnsafe() !== undefined).length === 9)
        )
        // Longer than a lease, which is renewed while the effect runs.
        yield* backend.advance(leaseMillis * 3)
        const refused = yield* Effect.flip(attempt)
        assert(refused instanceof Deduplication.InProgress)
        assert.isAbove(refused.leftMillis, 0)
        assert.isAtMost(refused.leftMillis, leaseMillis)
        yield* Deferred.succeed(gate, undefined)
        const exits = yield* soon(Effect.forEach(callers, Fiber.join))
        assert.lengthOf(exits.filter(Exit.isSuccess), 1)
        assert.strictEqual(yield* Ref.get(runs), 1)
        assert.strictEqual((yield* attempt)._tag, "Duplicate")
      })
    )

    test(
      "leaves no mark when the effect fails, dies or is interrupted",
      Effect.gen(function*() {
        const key = fresh()
        const failed = yield* Effect.exit(Deduplication.once(key, "1 hour", Effect.fail("no")))
        assert.isTrue(
          Exit.isFailure(failed) &&
            Cause.findErrorOption(failed.cause).pipe((error) => error._tag === "Some" && error.value === "no")
        )
        const died = yield* Effect.exit(Deduplication.once(key, "1 hour", Effect.die("no")))
        assert.isTrue(Exit.isFailure(died) && Cause.hasDies(died.cause))
        const started = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(
          Deduplication.once(key, "1 hour", Effect.andThen(Deferred.succeed(started, undefined), Effect.never))
        )
        yield* soon(Deferred.await(started))
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* Deduplication.once(key, "1 hour", Effect.succeed(1)), { _tag: "Done", value: 1 })
      })
    )

    test(
      "a key whose holder is gone is free after its lease, and the holder cannot finish it",
      Effect.gen(function*() {
        const key = fresh()
        const { step } = yield* Deduplication.Deduplication
        const gone = { text: fresh() }
        assert.strictEqual((yield* step("begin", key, gone, leaseMillis)).outcome, "mine")
        assert.strictEqual((yield* step("begin", key, gone, leaseMillis)).outcome, "mine")
        const attempt = Deduplication.once(key, "1 hour", Effect.succeed("after"))
        assert.instanceOf(yield* Effect.flip(attempt), Deduplication.InProgress)
        yield* backend.advance(leaseMillis + 20)
        assert.deepStrictEqual(yield* attempt, { _tag: "Done", value: "after" })
        for (const late of ["finish", "free"] as const) {
          assert.strictEqual((yield* step(late, key, gone, 1000)).outcome, "lost")
        }
        assert.strictEqual((yield* attempt)._tag, "Duplicate")
      })
    )

    test(
      "interrupts the effect when another caller has the key",
      Effect.gen(function*() {
        const key = fresh()
        const { run, step } = yield* Deduplication.Deduplication
        const started = yield* Deferred.make<void>()
        const holder = yield* Ref.make<unknown>(undefined)
        const spied = Deduplication.Deduplication.of({
          run,
          step: (name, key, token, millis) => Effect.andThen(Ref.set(holder, token), step(name, key, token, millis))
        })
        const fiber = yield* Effect.forkChild(
          Deduplication.once(key, "1 hour", Effect.andThen(Deferred.succeed(started, undefined), Effect.never), {
            lease: leaseMillis
          }).pipe(Effect.provideService(Deduplication.Deduplication, spied), Effect.flip)
        )
        yield* soon(Deferred.await(started))
        const stolen = (yield* Ref.get(holder)) as { readonly text: string }
        yield* step("free", key, stolen, 0)
        assert.strictEqual((yield* step("begin", key, { text: fresh() }, 60_000)).outcome, "mine")
        assert.instanceOf(yield* soon(Fiber.join(fiber)), Deduplication.KeyLost)
        assert.instanceOf(
          yield* Effect.flip(Deduplication.once(key, "1 hour", Effect.void)),
          Deduplication.InProgress
        )
      })
    )

    test(
      "forgets a key that was done, and only such a one",
      Effect.gen(function*() {
        const key = fresh()
        assert.isFalse(yield* Deduplication.forget(key))
        yield* Deduplication.once(key, "1 hour", Effect.void)
        assert.isTrue(yield* Deduplication.forget(key))
        const inside = yield* Deduplication.once(key, "1 hour", Deduplication.forget(key))
        assert.deepStrictEqual(inside, { _tag: "Done", value: false })
      })
    )

    test(
      "refuses keys and times that are none",
      Effect.gen(function*() {
        for (
          const attempt of [
            Deduplication.once("", "1 hour", Effect.void),
            Deduplication.once("x".repeat(1025), "1 hour", Effect.void),
            Deduplication.once("x", 0, Effect.void),
            Deduplication.once("x", "1 hour", Effect.void, { lease: 1 })
          ]
        ) assert.instanceOf(yield* Effect.flip(attempt), Deduplication.InvalidKey)
      })
    )
  })
}
