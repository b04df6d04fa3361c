/**
 * 17. Ordering keys: the orders of one customer are handled one after the other, also through a retry; other customers go on meanwhile.
 *
 *     node --conditions=rotif-source examples/17-ordering.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Deferred, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Orders = Channel.make("orders", {
  payload: Schema.Struct({ id: Schema.String, customer: Schema.String }),
  orderingKey: (order) => order.customer
})

class CardDeclined extends Data.TaggedError("CardDeclined")<{}> {}

const program = Effect.gen(function*() {
  const charged = yield* Queue.unbounded<string>()
  const othersAreDone = yield* Deferred.make<void>()

  yield* Subscription.make(Orders, {
    group: "billing",
    concurrency: 8,
    retryDelay: "50 millis",
    handler: Effect.fnUntraced(function*({ attempt, orderingKey, payload }) {
      // The first order of alice fails once. Her second one waits for it.
      if (payload.id === "a-1" && attempt === 1) {
        yield* Deferred.await(othersAreDone)
        return yield* new CardDeclined()
      }
      yield* Queue.offer(charged, `${orderingKey}: ${payload.id}, attempt ${attempt}`)
    })
  })
  yield* Publisher.publishAll(Orders, [
    { id: "a-1", customer: "alice" },
    { id: "a-2", customer: "alice" },
    { id: "b-1", customer: "bob" },
    { id: "b-2", customer: "bob" }
  ])

  for (const line of yield* Queue.takeN(charged, 2)) yield* Console.log(line)
  yield* Deferred.succeed(othersAreDone, undefined)
  for (const line of yield* Queue.takeN(charged, 2)) yield* Console.log(line)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
