/**
 * 13. Exactly once: consume, publish and count in one step, whatever copies arrive and whichever attempts fail.
 *
 *     node --conditions=rotif-source examples/13-transaction.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Queue, Schema } from "effect"
import { Channel, Deduplication, Publisher, Subscription, Transaction } from "rotif"
import { backend } from "./backend.ts"

const Order = Schema.Struct({ id: Schema.String, total: Schema.Int })
const OrderPlaced = Channel.make("orders.placed", { payload: Order, idempotencyKey: ({ id }) => id })
const OrderPaid = Channel.make("orders.paid", { payload: Order })

class GatewayDown extends Data.TaggedError("GatewayDown")<{ readonly message: string }> {}

const program = Effect.gen(function*() {
  const shipped = yield* Queue.unbounded<string>()

  yield* Subscription.make(OrderPlaced, {
    group: "billing",
    transactional: true,
    retryDelay: "10 millis",
    handler: Effect.fnUntraced(function*({ attempt, payload }) {
      // Collected now, applied together with the acknowledgement.
      yield* Transaction.publish(OrderPaid, payload)
      yield* Transaction.incrby(yield* Transaction.key("turnover"), payload.total)
      // Nothing is applied for an attempt that fails.
      if (attempt === 1) return yield* new GatewayDown({ message: "try again" })
    })
  })
  yield* Subscription.make(OrderPaid, {
    group: "shipping",
    exactlyOnce: true,
    handler: ({ payload }) => Queue.offer(shipped, payload.id)
  })

  // The channel makes the id: an order that is placed twice is one order.
  for (const id of ["o-1", "o-2", "o-1"]) {
    const { _tag } = yield* Publisher.publish(OrderPlaced, { id, total: 21 })
    yield* Console.log(`${id}: ${_tag}`)
  }
  const orders = (yield* Queue.takeN(shipped, 2)).toSorted((a, b) => a.localeCompare(b))
  yield* Console.log(`shipped ${orders.join(" ")}`)
  const turnover = yield* Transaction.read(yield* Transaction.keyFor(OrderPlaced, "turnover"))
  yield* Console.log(`turnover ${JSON.stringify(turnover)}`)

  // An effect outside Redis: at most one at a time, and not again after it has succeeded.
  for (const round of [1, 2]) {
    const { _tag } = yield* Deduplication.once("report:2026-03", "1 day", Console.log(`report sent in round ${round}`))
    yield* Console.log(`round ${round}: ${_tag}`)
  }
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
