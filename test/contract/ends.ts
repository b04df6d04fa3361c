/** Ends of subscriptions: all callers, also inside of handlers, wait for the same end, and running handlers finish. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, ManagedRuntime, Queue, Schema, Scope } from "effect"
import {
  Broadcast,
  Broker,
  Channel,
  DeadLetters,
  Deduplication,
  type Message,
  Middleware,
  Publisher,
  type Rotif,
  Scheduler,
  Subscription
} from "rotif"
import { type Backend, leftover, listen, nothingLeft, promises, until } from "./kit.ts"

const Text = Channel.make("texts", { payload: Schema.String })
const Other = Channel.make("others", { payload: Schema.String })

type End = (subscription: Subscription.Subscription, scope: Scope.Closeable) => Effect.Effect<void, unknown>

/** Every way to end a subscription. */
const ways: ReadonlyArray<readonly [name: string, end: End]> = [
  ["drain", ({ drain }) => drain],
  ["unsubscribe", ({ unsubscribe }) => unsubscribe()],
  ["unsubscribe with removeGroup", ({ unsubscribe }) => unsubscribe({ removeGroup: true })],
  ["an interruption of its fiber", ({ fiber }) => Fiber.interrupt(fiber)],
  ["the end of its scope", (_, scope) => Scope.close(scope, Exit.void)]
]

export const endsSuite = (backend: Backend): void => {
  const test = promises(backend)
  const { soon } = backend
  const later = backend.advance("20 millis")

  /** A subscription in a scope of its own. */
  const inScope = Effect.fnUntraced(function*(
    options: (end: (way: End) => Effect.Effect<void, unknown>) => Partial<
      Subscription.Options<typeof Text, unknown, Rotif.Services>
    >
  ) {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const own = yield* Deferred.make<Subscription.Subscription>()
    const end = (way: End) => Effect.flatMap(Deferred.await(own), (subscription) => way(subscription, scope))
    const { seen, subscription } = yield* Scope.provide(
      listen(Text, { drainTimeout: "1 minute", ...options(end) }),
      scope
    )
    yield* Deferred.succeed(own, subscription)
    return { scope, seen, subscription, end }
  })

  describe("Subscription: its end is one for all who ask for it", () => {
    for (const [first, begin] of ways) {
      for (const [second, join] of ways) {
        // Closing a scope that is already being closed waits for nothing: this is Effect's behaviour.
        if (first === second && begin === ways.at(-1)![1]) continue
        test(
          `${first}, and then ${second}: both wait for the handler that runs`,
          Effect.gen(function*() {
            const gate = yield* Deferred.make<void>()
            const { end, seen, subscription } = yield* inScope(() => ({ handler: () => Deferred.await(gate) }))
            yield* Publisher.publish(Text, "x")
            yield* soon(Queue.take(seen))
            const ends = [
              yield* Effect.forkChild(end(begin), { startImmediately: true }),
              yield* Effect.forkChild(end(join), { startImmediately: true })
            ]
            yield* later
            assert.deepStrictEqual(ends.map((fiber) => fiber.pollUnsafe()), [undefined, undefined])
            yield* Deferred.succeed(gate, undefined)
            yield* soon(Fiber.joinAll(ends))
            assert.strictEqual((yield* subscription.stats).processed, 1)
            assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
          })
        )
      }
    }

    test(
      "who does not wait any longer does not cut it short",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* inScope(() => ({ handler: () => Deferred.await(gate) }))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        const impatient = yield* Effect.forkChild(subscription.drain, { startImmediately: true })
        yield* Fiber.interrupt(impatient)
        yield* Deferred.succeed(gate, undefined)
        yield* soon(subscription.ended)
        assert.strictEqual((yield* subscription.stats).processed, 1)
      })
    )

    test(
      "unsubscribe with removeGroup during a drain removes the group after it",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* inScope(() => ({ handler: () => Deferred.await(gate), group: "g" }))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        const broker = yield* Broker.Broker
        const groups = Effect.map(
          broker.info(Channel.selector(Text)),
          ({ channels }) => channels.flatMap((channel) => channel.groups.map(({ group }) => group))
        )
        const draining = yield* Effect.forkChild(subscription.drain, { startImmediately: true })
        const removing = yield* Effect.forkChild(subscription.unsubscribe({ removeGroup: true }), {
          startImmediately: true
        })
        yield* later
        assert.deepStrictEqual(yield* groups, ["g"])
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(removing))
        yield* Fiber.join(draining)
        assert.deepStrictEqual(yield* groups, [])
        assert.strictEqual((yield* subscription.stats).processed, 1)
        // A second call changes nothing.
        yield* subscription.unsubscribe({ removeGroup: true })
      })
    )
  })

  describe("Subscription: an end asked for from inside of a handler", () => {
    for (const [name, way] of ways) {
      test(
        `${name} waits for everything else, and the message of the handler is acknowledged`,
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const asked = yield* Deferred.make<void>()
          const resumed = yield* Deferred.make<void>()
          const { end, seen, subscription } = yield* inScope((end) => ({
            concurrency: 2,
            group: "g",
            handler: ({ payload }) =>
              payload === "long" ? Deferred.await(gate) : Effect.gen(function*() {
                yield* Deferred.succeed(asked, undefined)
                yield* end(way)
                yield* Deferred.succeed(resumed, undefined)
              })
          }))
          yield* Publisher.publishAll(Text, ["long", "ends"])
          yield* soon(Queue.takeN(seen, 2))
          yield* soon(Deferred.await(asked))
          const outside = yield* Effect.forkChild(end(way), { startImmediately: true })
          yield* later
          assert.isFalse(yield* Deferred.isDone(resumed))
          yield* Deferred.succeed(gate, undefined)
          yield* soon(Deferred.await(resumed))
          yield* soon(Fiber.join(outside))
          yield* soon(subscription.ended)
          const { failed, lostLeases, processed } = yield* subscription.stats
          assert.deepStrictEqual({ failed, lostLeases, processed }, { failed: 0, lostLeases: 0, processed: 2 })
          assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
        })
      )
    }

    test(
      "by a subscription that the handler made, and that is no part of it: the end waits for the handler",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const asked = yield* Deferred.make<void>()
        const over = yield* Deferred.make<void>()
        const scope = yield* Effect.scope
        const { seen, subscription } = yield* inScope((end) => ({
          handler: () =>
            Subscription.make(Other, {
              maxRetries: 0,
              handler: () => Effect.fail("no"),
              reports: () =>
                Deferred.succeed(asked, undefined).pipe(
                  Effect.andThen(end(ways[0]![1])),
                  Effect.andThen(Deferred.succeed(over, undefined))
                )
            }).pipe(Scope.provide(scope), Effect.andThen(Deferred.await(gate)))
        }))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        yield* Publisher.publish(Other, "fails")
        yield* soon(Deferred.await(asked))
        yield* later
        assert.isFalse(yield* Deferred.isDone(over))
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Deferred.await(over))
        assert.strictEqual((yield* subscription.stats).processed, 1)
      })
    )

    for (const [name, way] of ways) {
      test(
        `${name}, asked for outside first and then inside as well: neither waits for the drainTimeout`,
        Effect.gen(function*() {
          const gate = yield* Deferred.make<void>()
          const { end, seen, subscription } = yield* inScope((end) => ({
            drainTimeout: "10 hours",
            handler: () => Effect.andThen(Deferred.await(gate), end(way))
          }))
          yield* Publisher.publish(Text, "ends")
          yield* soon(Queue.take(seen))
          const outside = yield* Effect.forkChild(end(ways[0]![1]), { startImmediately: true })
          yield* later
          yield* Deferred.succeed(gate, undefined)
          yield* soon(Fiber.join(outside))
          const { failed, processed } = yield* subscription.stats
          assert.deepStrictEqual({ failed, processed }, { failed: 0, processed: 1 })
        })
      )
    }

    test(
      "its fiber, interrupted outside first and then inside: neither waits for the drainTimeout",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const interrupt: End = ({ fiber }) => Fiber.interrupt(fiber)
        const { end, seen, subscription } = yield* inScope((end) => ({
          drainTimeout: "10 hours",
          handler: () => Effect.andThen(Deferred.await(gate), end(interrupt))
        }))
        yield* Publisher.publish(Text, "ends")
        yield* soon(Queue.take(seen))
        const outside = yield* Effect.forkChild(end(interrupt), { startImmediately: true })
        yield* later
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(outside))
        yield* soon(subscription.ended)
        const { failed, processed } = yield* subscription.stats
        assert.deepStrictEqual({ failed, processed }, { failed: 0, processed: 1 })
      })
    )

    test(
      "also with a drainTimeout of 0, from a fiber of the handler, from middleware, the finalizer of an attempt",
      Effect.gen(function*() {
        const places: ReadonlyArray<
          (ask: Effect.Effect<void>) => {
            readonly handler?: (message: Message.Envelope) => Effect.Effect<unknown, unknown, Scope.Scope>
            readonly middleware?: readonly [Middleware.Process]
            readonly transactional?: boolean
            readonly exactlyOnce?: boolean
          }
        > = [
          (ask) => ({ handler: () => ask }),
          (ask) => ({ handler: () => Effect.flatMap(Effect.forkChild(ask), Fiber.join) }),
          (ask) => ({ handler: () => Effect.flatMap(Effect.forkDetach(ask), Fiber.join) }),
          (ask) => ({ handler: () => Effect.promise(() => Effect.runPromise(ask)) }),
          (ask) => ({ handler: () => Effect.addFinalizer(() => ask) }),
          (ask) => ({ middleware: [Middleware.process((next) => (message) => Effect.tap(next(message), ask))] }),
          (ask) => ({ transactional: true, handler: () => ask }),
          (ask) => ({ exactlyOnce: true, handler: () => Effect.andThen(Effect.yieldNow, ask) }),
          (ask) => ({ handler: ({ ack }) => Effect.andThen(ack, ask) })
        ]
        for (const [i, place] of places.entries()) {
          const channel = Channel.make(`texts.${i}`, { payload: Schema.String })
          const own = yield* Deferred.make<Subscription.Subscription>()
          const { subscription } = yield* listen(channel, {
            drainTimeout: 0,
            ...place(Effect.flatMap(Deferred.await(own), ({ drain }) => drain))
          })
          yield* Deferred.succeed(own, subscription)
          yield* Publisher.publish(channel, "x")
          yield* soon(subscription.ended)
          const { failed, lostLeases, processed } = yield* subscription.stats
          assert.deepStrictEqual(
            { place: i, failed, lostLeases, processed },
            { place: i, failed: 0, lostLeases: 0, processed: 1 }
          )
          assert.deepStrictEqual(yield* leftover(channel), nothingLeft)
        }
      })
    )

    test(
      "two handlers that end their subscriptions, and each other's, wait for neither",
      Effect.gen(function*() {
        const both = yield* Deferred.make<ReadonlyArray<Subscription.Subscription>>()
        const running = { count: 0 }
        const started = yield* Deferred.make<void>()
        const endAll = Effect.gen(function*() {
          if (++running.count === 2) yield* Deferred.succeed(started, undefined)
          yield* Deferred.await(started)
          const all = yield* Deferred.await(both)
          yield* Effect.forEach(all, ({ drain }) => drain, { concurrency: "unbounded", discard: true })
        })
        const options = { drainTimeout: "1 minute", handler: () => endAll } as const
        const a = yield* listen(Text, options)
        const b = yield* listen(Other, options)
        yield* Deferred.succeed(both, [a.subscription, b.subscription])
        yield* Publisher.publish(Text, "x")
        yield* Publisher.publish(Other, "x")
        yield* soon(Effect.all([a.subscription.ended, b.subscription.ended]))
        for (const { subscription } of [a, b]) assert.strictEqual((yield* subscription.stats).processed, 1)
      })
    )

    test(
      "a handler that goes on too long after that is interrupted, and its message comes again",
      Effect.gen(function*() {
        const { seen, subscription } = yield* inScope((end) => ({
          drainTimeout: 100,
          group: "g",
          handler: () => Effect.andThen(end(({ drain }) => drain), Effect.never)
        }))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        yield* soon(subscription.ended)
        const again = yield* listen(Text, { group: "g" })
        assert.strictEqual((yield* soon(Queue.take(again.seen))).attempt, 1)
      })
    )
  })

  describe("Subscription.fiber", () => {
    test(
      "completes when the subscription has ended, not before",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { end, seen, subscription } = yield* inScope(() => ({ handler: () => Deferred.await(gate) }))
        yield* Publisher.publish(Text, "x")
        yield* soon(Queue.take(seen))
        const joined = yield* Effect.forkChild(Fiber.join(subscription.fiber), { startImmediately: true })
        yield* Effect.forkChild(end(({ drain }) => drain), { startImmediately: true })
        yield* later
        assert.isUndefined(subscription.fiber.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(joined))
        assert.strictEqual((yield* subscription.stats).processed, 1)
        assert.deepStrictEqual(yield* leftover(Text), nothingLeft)
      })
    )

    test(
      "fails when somebody has removed the group",
      Effect.gen(function*() {
        const { subscription } = yield* listen(Text, { group: "g", blockInterval: 100 })
        const broker = yield* Broker.Broker
        yield* broker.removeGroup("g", Channel.selector(Text))
        const removed = yield* soon(Effect.flip(Fiber.join(subscription.fiber)))
        assert.strictEqual(removed._tag, "GroupRemoved")
      })
    )

    test(
      "an interruption finishes what runs, and gives the rest back as the same attempt",
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* inScope(() => ({
          group: "g",
          prefetch: 2,
          handler: () => Deferred.await(gate)
        }))
        yield* Publisher.publishAll(Text, ["a", "b", "c"])
        yield* soon(Queue.take(seen))
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(subscription.fiber), { startImmediately: true })
        yield* later
        assert.isUndefined(interrupting.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(interrupting))
        assert.strictEqual((yield* subscription.stats).processed, 1)
        const again = yield* listen(Text, { group: "g" })
        const rest = yield* soon(Queue.takeN(again.seen, 2))
        assert.deepStrictEqual(rest.map(({ attempt, payload }) => `${payload} ${attempt}`).sort(), ["b 1", "c 1"])
      })
    )
  })

  describe("Rotif.layer: its end", () => {
    test(
      "ends the subscriptions that are left, and waits for their handlers",
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(backend.layer({ drainTimeout: "1 minute" }), scope)
        const gate = yield* Deferred.make<void>()
        const { seen, subscription } = yield* Effect.provide(
          listen(Text, { handler: () => Deferred.await(gate) }),
          services
        )
        yield* Effect.provide(Publisher.publish(Text, "x"), services)
        yield* soon(Queue.take(seen))
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* later
        assert.isUndefined(closing.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(closing))
        assert.strictEqual((yield* subscription.stats).processed, 1)
      })
    )

    test(
      "asked for inside of a handler: the message of the handler is acknowledged before the connections close",
      Effect.gen(function*() {
        const own = yield* Deferred.make<ManagedRuntime.ManagedRuntime<Rotif.Services, unknown>>()
        const disposed = yield* Deferred.make<void>()
        const runtime = ManagedRuntime.make(
          backend.layer({ drainTimeout: "1 minute" }).pipe(
            Layer.provideMerge(Layer.effectContext(Effect.context<never>()))
          )
        )
        yield* Deferred.succeed(own, runtime)
        const services = yield* runtime.contextEffect
        const { subscription } = yield* Effect.provide(
          listen(Text, {
            handler: () =>
              Effect.gen(function*() {
                const runtime = yield* Deferred.await(own)
                yield* Effect.promise(() => runtime.dispose())
                yield* Deferred.succeed(disposed, undefined)
              })
          }),
          services
        )
        yield* Effect.provide(Publisher.publish(Text, "x"), services)
        yield* soon(Deferred.await(disposed))
        yield* soon(subscription.ended)
        const { failed, lostLeases, processed } = yield* subscription.stats
        assert.deepStrictEqual({ failed, lostLeases, processed }, { failed: 0, lostLeases: 0, processed: 1 })
      })
    )
  })

  describe("Rotif.layer: calls that have begun", () => {
    test(
      "are finished before it ends; later ones are refused, and say so",
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(backend.layer(), scope)
        const begin = <A, E>(call: Effect.Effect<A, E, Rotif.Services>) =>
          Effect.forkChild(Effect.result(Effect.provide(call, services)), { startImmediately: true })
        const gate = yield* Deferred.make<void>()
        const calls: ReadonlyArray<Effect.Effect<unknown, unknown, Rotif.Services>> = [
          Publisher.publish(Text, "a"),
          Publisher.publishAll(Text, Array.from({ length: 2_000 }, String)),
          Broadcast.publish(Text, "a"),
          Scheduler.count(),
          Scheduler.recurring("k", { every: "1 hour" }, Text, "x"),
          Scheduler.listRecurring,
          DeadLetters.count(),
          DeadLetters.requeueAll({}, { limit: 10 }),
          Deduplication.once("key", "1 hour", Effect.void)
        ]
        const begun = yield* Effect.forEach(calls, (call) => begin(call))
        const slow = yield* begin(Deduplication.once("slow", "1 hour", Deferred.await(gate)))
        yield* later
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* later
        assert.isUndefined(closing.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(closing))
        const results = yield* soon(Fiber.joinAll([...begun, slow]))
        assert.deepStrictEqual(results.filter(({ _tag }) => _tag === "Failure"), [])
        for (const call of calls) {
          const error = yield* Effect.flip(Effect.provide(call, services))
          assert.deepInclude(error, { _tag: "BrokerError", reason: "Stopped" })
        }
      })
    )
  })

  describe("DeadLetters.subscribe: its end", () => {
    const bury = Effect.gen(function*() {
      const { subscription } = yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
      yield* Publisher.publish(Text, "x")
      yield* until(backend, Effect.map(DeadLetters.count(), (count) => count === 1))
      yield* soon(subscription.drain)
    })

    test(
      "waits for the handler that runs",
      Effect.gen(function*() {
        yield* bury
        const gate = yield* Deferred.make<void>()
        const begun = yield* Deferred.make<void>()
        const scope = yield* Scope.make()
        yield* DeadLetters.subscribe({
          handler: (letter) =>
            Effect.andThen(Deferred.succeed(begun, undefined), Effect.andThen(Deferred.await(gate), letter.ack))
        }).pipe(Scope.provide(scope))
        yield* soon(Deferred.await(begun))
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* later
        assert.isUndefined(closing.pollUnsafe())
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(closing))
        assert.strictEqual(yield* DeadLetters.count(), 0)
      })
    )

    test(
      "asked for inside of its handler: the letter is concluded",
      Effect.gen(function*() {
        yield* bury
        const scope = yield* Scope.make()
        const done = yield* Deferred.make<void>()
        yield* DeadLetters.subscribe({
          handler: (letter) =>
            Effect.gen(function*() {
              yield* Scope.close(scope, Exit.void)
              yield* letter.ack
              yield* Deferred.succeed(done, undefined)
            })
        }).pipe(Scope.provide(scope))
        yield* soon(Deferred.await(done))
        assert.strictEqual(yield* DeadLetters.count(), 0)
      })
    )
  })

  describe("DeadLetters.subscribe: its end", () => {
    test(
      "asked for outside first and then inside of its handler: neither waits for the drainTimeout",
      Effect.gen(function*() {
        yield* listen(Text, { maxRetries: 0, handler: () => Effect.fail("no") })
        yield* Publisher.publish(Text, "x")
        const scope = yield* Scope.make()
        const [began, gate] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        yield* DeadLetters.subscribe({
          drainTimeout: "10 hours",
          handler: (letter) =>
            Effect.gen(function*() {
              yield* Deferred.succeed(began, undefined)
              yield* Deferred.await(gate)
              const { endings } = yield* DeadLetters.DeadLetters
              yield* Effect.forEach([...endings], ({ ask }) => ask, { discard: true })
              yield* letter.ack
            })
        }).pipe(Scope.provide(scope))
        yield* soon(Deferred.await(began))
        const outside = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* later
        yield* Deferred.succeed(gate, undefined)
        yield* soon(Fiber.join(outside))
        assert.strictEqual(yield* DeadLetters.count(), 0)
      })
    )
  })

  describe("Broadcast.listen: its end", () => {
    test(
      "asked for inside of its handler: the handler goes on, and nothing more is heard",
      Effect.gen(function*() {
        const own = yield* Deferred.make<Broadcast.Listener>()
        const heard = yield* Queue.unbounded<string>()
        const listener = yield* Broadcast.listen(Text, {
          handler: ({ payload }) =>
            Effect.gen(function*() {
              const { stop } = yield* Deferred.await(own)
              yield* stop
              yield* Queue.offer(heard, payload)
            })
        })
        yield* Deferred.succeed(own, listener)
        yield* Broadcast.publish(Text, "a")
        assert.strictEqual(yield* soon(Queue.take(heard)), "a")
        yield* soon(listener.stop)
        assert.strictEqual((yield* listener.stats).handled, 1)
        yield* Broadcast.publish(Text, "b")
        yield* later
        assert.strictEqual(yield* Queue.size(heard), 0)
      })
    )
  })
}
