/** Messages that are stored in other ways than by a publish pass the publish middleware too. */
import { assert, describe } from "@effect/vitest"
import { inspect } from "node:util"
import { Effect, Layer, Queue, Schema, Tracer } from "effect"
import { Channel, DeadLetters, Middleware, Publisher, Scheduler, Transaction } from "rotif"
import { type Backend, listen } from "./kit.ts"
import { withProgram } from "./middleware.ts"

const Placed = Channel.make("orders.placed", { payload: Schema.String })
const Paid = Channel.make("orders.paid", { payload: Schema.String })

const tenant = Middleware.publish((next) => (request) =>
  next({ ...request, options: { ...request.options, headers: { ...request.options.headers, tenant: "a" } } })
)

export const preparedSuite = (backend: Backend): void => {
  const testProgram = withProgram(backend)
  const { soon } = backend

  describe("printed values", () => {
    withProgram(backend)(
      "a message, a delivery, a receipt and a dead letter show their public fields, and nothing internal",
      Layer.empty,
      Effect.gen(function*() {
        const { seen } = yield* listen(Placed, { group: "billing", maxRetries: 0, handler: () => Effect.fail("no") })
        const receipt = yield* Publisher.publish(Placed, "o-1", { id: "m-1", headers: { h: "1" } })
        const message = yield* soon(Queue.take(seen))
        const offered = yield* Queue.unbounded<object>()
        yield* DeadLetters.subscribe({ handler: (letter) => Queue.offer(offered, letter) })
        yield* DeadLetters.subscribe(Placed, { name: "typed", handler: (letter) => Queue.offer(offered, letter) })
        const letters = yield* soon(Queue.takeN(offered, 2))
        const delivery = (message as unknown as { readonly delivery: object }).delivery
        for (const one of [message, { nested: message }, delivery, receipt, ...letters]) {
          const text = inspect(one)
          assert.include(text, "m-1")
          assert.include(text, "orders.placed")
          assert.isBelow(text.split("\n").length, 45)
          assert.notMatch(
            text,
            /Live|Lease|Held|held|source|reading|consumer|outbox|fiber|~effect|Function|conclude|heldUntil/
          )
        }
        assert.include(inspect(message), "payload: 'o-1'")
      })
    )
  })

  describe("Middleware around publishes that are stored otherwise", () => {
    const receipts: Array<string> = []
    testProgram(
      "gives its headers to the messages of a transaction, and to the ticks of a recurring message",
      Middleware.layer(tenant, Middleware.hooks({ afterPublish: ({ _tag }) => void receipts.push(_tag) })),
      Effect.gen(function*() {
        receipts.length = 0
        const { seen } = yield* listen(Paid, { group: "mail" })
        yield* listen(Placed, {
          group: "billing",
          transactional: true,
          handler: ({ payload }) => Transaction.publish(Paid, payload, { headers: { own: "1" }, id: "t-1" })
        })
        yield* Publisher.publish(Placed, "o-1")
        const paid = yield* soon(Queue.take(seen))
        assert.deepStrictEqual([paid.id, { ...paid.headers }], ["t-1", { own: "1", tenant: "a" }])
        yield* Scheduler.recurring("report", { every: "100 millis" }, Paid, "tick", { headers: { own: "2" } })
        const tick = yield* soon(Queue.take(seen))
        assert.deepStrictEqual({ ...tick.headers }, { own: "2", tenant: "a" })
        // The handler may run before the hook of the publish that it handles.
        assert.deepStrictEqual(receipts.toSorted(), ["Published", "Scheduled", "Scheduled"])
      })
    )

    const nothing = Middleware.publish(() => (request) =>
      Effect.succeed({ _tag: "Duplicate", id: "earlier", channel: request.channel.name, position: undefined })
    )
    testProgram(
      "may let a message of a transaction not through; a recurring message is refused then",
      Layer.empty,
      Effect.gen(function*() {
        const Quiet = Middleware.forChannel(Paid, nothing)
        const ids = yield* Queue.unbounded<string>()
        const { seen } = yield* listen(Paid, { group: "mail" })
        const { subscription } = yield* listen(Placed, {
          group: "billing",
          transactional: true,
          handler: () => Effect.flatMap(Transaction.publish(Quiet, "x"), (id) => Queue.offer(ids, id))
        })
        yield* Publisher.publish(Placed, "o-1")
        assert.strictEqual(yield* soon(Queue.take(ids)), "earlier")
        yield* soon(subscription.drain)
        yield* Publisher.publish(Paid, "y")
        assert.strictEqual((yield* soon(Queue.take(seen))).payload, "y")
        const error = yield* Effect.flip(Scheduler.recurring("report", { every: "1 second" }, Quiet, "tick"))
        assert.strictEqual(error._tag, "PublishRefused")
      })
    )

    testProgram(
      "carries the trace of the handler, and of the definition of the recurring message",
      Middleware.layer(Middleware.tracing()),
      Effect.gen(function*() {
        const { seen } = yield* listen(Paid, { group: "mail" })
        yield* listen(Placed, {
          group: "billing",
          transactional: true,
          handler: ({ payload }) => Transaction.publish(Paid, payload)
        })
        yield* Publisher.publish(Placed, "o-1")
        const traceOf = (message: { readonly headers: Readonly<Record<string, string>> }) =>
          message.headers["traceparent"]?.split("-")[1]
        const [paid] = yield* soon(Queue.takeN(seen, 1))
        assert.isString(traceOf(paid!))
        const trace = yield* Effect.gen(function*() {
          yield* Scheduler.recurring("report", { every: "100 millis" }, Paid, "tick")
          return (yield* Effect.currentSpan).traceId
        }).pipe(Effect.withSpan("defining"))
        assert.strictEqual(traceOf(yield* soon(Queue.take(seen))), trace)
      }).pipe(Effect.provideService(Tracer.Tracer, Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })))
    )
  })
}
