/** The scope of an attempt: it ends before the message is settled, however the attempt ends. */
import { assert, describe } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Queue, Schema, type Scope } from "effect"
import { Broadcast, Channel, DeadLetters, Middleware, Publisher, type Rotif } from "rotif"
import { type Backend, leftover, letters, listen, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })

export const scopesSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend

  describe("Subscription: the scope of an attempt", () => {
    test(
      "is closed before the settlement, with the exit of the attempt",
      Effect.gen(function*() {
        const services = yield* Effect.context<Rotif.Services>()
        const pending = Effect.provide(Effect.map(Effect.orDie(leftover(Text)), ({ pending }) => pending), services)
        const closed = yield* Queue.unbounded<ReadonlyArray<unknown>>()
        const ended: Array<string> = []
        const { subscription } = yield* listen(Text, {
          maxRetries: 1,
          retryDelay: 10,
          handler: ({ attempt, payload }) =>
            Effect.gen(function*() {
              yield* Effect.addFinalizer((exit) => {
                const how = Exit.isSuccess(exit) ? "success" : Cause.hasDies(exit.cause) ? "defect" : "failure"
                return Effect.flatMap(pending, (count) => Queue.offer(closed, [payload, attempt, how, count]))
              })
              yield* Effect.forkScoped(Effect.ensuring(Effect.never, Effect.sync(() => ended.push(payload))), {
                startImmediately: true
              })
              if (payload === "fails") return yield* Effect.fail("no")
              if (payload === "dies") return yield* Effect.die(new Error("no"))
            })
        })
        yield* Publisher.publish(Text, "ok")
        assert.deepStrictEqual(yield* soon(Queue.take(closed)), ["ok", 1, "success", 1])
        yield* Publisher.publish(Text, "fails")
        assert.deepStrictEqual(yield* soon(Queue.takeN(closed, 2)), [
          ["fails", 1, "failure", 1],
          ["fails", 2, "failure", 1]
        ])
        yield* Publisher.publish(Text, "dies")
        assert.deepStrictEqual(yield* soon(Queue.takeN(closed, 2)), [
          ["dies", 1, "defect", 1],
          ["dies", 2, "defect", 1]
        ])
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 2))
        assert.deepStrictEqual(ended, ["ok", "fails", "fails", "dies", "dies"])
      })
    )

    test(
      "is one for the middleware and the handler, and another one for each attempt",
      Effect.gen(function*() {
        const scopes = new Set<Scope.Scope>()
        const order: Array<string> = []
        const noted = (name: string) =>
          Effect.gen(function*() {
            scopes.add(yield* Effect.scope)
            yield* Effect.addFinalizer(() => Effect.sync(() => order.push(name)))
          })
        const { subscription } = yield* listen(Text, {
          concurrency: 4,
          middleware: [Middleware.process((next) => (message) => Effect.andThen(noted("middleware"), next(message)))],
          handler: () => noted("handler")
        })
        yield* Publisher.publishAll(Text, Array.from({ length: 100 }, String))
        yield* until(backend, Effect.map(subscription.stats, ({ processed }) => processed === 100))
        assert.strictEqual(scopes.size, 100)
        assert.lengthOf(order, 200)
        assert.deepStrictEqual(order.slice(0, 2), ["handler", "middleware"])
      })
    )

    test(
      "is closed when the handler is interrupted, before the message is given back",
      Effect.gen(function*() {
        const services = yield* Effect.context<Rotif.Services>()
        const closed = yield* Deferred.make<number>()
        const { seen, subscription } = yield* listen(Text, {
          drainTimeout: 0,
          handler: () =>
            Effect.andThen(
              Effect.addFinalizer(() =>
                leftover(Text).pipe(
                  Effect.orDie,
                  Effect.flatMap(({ pending }) => Deferred.succeed(closed, pending)),
                  Effect.provide(services)
                )
              ),
              Effect.never
            )
        })
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        yield* soon(subscription.drain)
        assert.strictEqual(yield* Deferred.await(closed), 1)
        assert.strictEqual((yield* leftover(Text)).pending, 0)
      })
    )

    test(
      "that cannot be closed is a failure of the attempt",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, {
          maxRetries: 0,
          handler: () => Effect.addFinalizer(() => Effect.die(new Error("stuck")))
        })
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        assert.deepInclude((yield* letters)[0]!.failure, { message: "stuck", isDefect: true })
      })
    )
  })

  describe("the scope of a handler", () => {
    test(
      "of dead letters is closed before the letter is concluded, that of a listener with its message",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "x")
        yield* until(backend, Effect.map(subscription.stats, ({ dead }) => dead === 1))
        const closed = yield* Queue.unbounded<string>()
        const open = (name: string) => Effect.addFinalizer(() => Queue.offer(closed, name))
        yield* DeadLetters.subscribe({ handler: () => open("letter") })
        assert.strictEqual(yield* soon(Queue.take(closed)), "letter")
        yield* Broadcast.listen(Text, { handler: ({ payload }) => open(payload) })
        yield* Broadcast.publishAll(Text, ["a", "b"])
        assert.deepStrictEqual(yield* soon(Queue.takeN(closed, 2)), ["a", "b"])
      })
    )
  })
}
