/**
 * 1. Publish and subscribe: a typed channel, a message on it, and a handler.
 *
 *     node --conditions=rotif-source examples/01-publish-subscribe.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

// A channel is a name and a schema. Payloads are values of the schema, here with a real Date; they travel as JSON.
const OrderPlaced = Channel.make("orders.placed", {
  payload: Schema.Struct({ id: Schema.String, total: Schema.Finite, at: Schema.Date })
})

// A name may have params. All users share one stream; the value travels with each message.
const Notice = Channel.make("users.:userId.notices", {
  payload: Schema.Struct({ text: Schema.String })
})

const program = Effect.gen(function*() {
  const handled = yield* Queue.unbounded<string>()

  // Nobody subscribes yet: the message is stored and waits.
  const receipt = yield* Publisher.publish(
    OrderPlaced,
    { id: "o-1", total: 42, at: new Date("2026-03-02T07:01:47Z") },
    { id: "order-o-1" }
  )
  yield* Console.log(`${receipt._tag}: ${receipt.id} on ${receipt.channel}`)

  // The same id again is the same message.
  const again = yield* Publisher.publish(OrderPlaced, { id: "o-1", total: 42, at: new Date() }, { id: "order-o-1" })
  yield* Console.log(`${again._tag}: ${again.id} on ${again.channel}`)

  // A subscription runs as long as its scope. A handler that succeeds acknowledges the message.
  yield* Subscription.make(OrderPlaced, {
    group: "billing",
    handler: ({ payload }) =>
      Queue.offer(handled, `charged ${payload.total} for ${payload.id} of ${payload.at.getUTCFullYear()}`)
  })
  yield* Console.log(yield* Queue.take(handled))

  yield* Subscription.make(Notice, {
    group: "mail",
    handler: ({ params, payload }) => Queue.offer(handled, `told user ${params.userId}: ${payload.text}`)
  })
  yield* Publisher.publish(Notice, { text: "your order is on its way" }, { params: { userId: "42" } })
  yield* Console.log(yield* Queue.take(handled))

  // Many at once: one round trip, receipts in order.
  const orders = ["o-2", "o-3", "o-4"].map((id) => ({ id, total: 10, at: new Date("2026-03-02T08:00:00Z") }))
  const receipts = yield* Publisher.publishAll(OrderPlaced, orders)
  yield* Console.log(`published ${receipts.length} more`)
  for (const line of yield* Queue.takeN(handled, 3)) yield* Console.log(line)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
