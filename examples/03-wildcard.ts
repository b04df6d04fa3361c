/**
 * 3. Wildcards and unions: one subscription to many channels, including channels that do not exist yet.
 *
 *     node --conditions=rotif-source examples/03-wildcard.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Placed = Channel.make("orders.eu.placed", { payload: Schema.Struct({ id: Schema.String, total: Schema.Finite }) })
const Refunded = Channel.make("orders.eu.refunded", {
  payload: Schema.Struct({ order: Schema.String, reason: Schema.String })
})
const UsPlaced = Channel.make("orders.us.placed", { payload: Placed.payload })

// "*" is exactly one segment, "**" is one or more.
const AnyPlaced = Channel.pattern("orders.*.placed", { payload: Placed.payload })
const AnyOrder = Channel.pattern("orders.**", { payload: Schema.Union([Placed.payload, Refunded.payload]) })

// A union names its channels, and its handler knows the payload type of each.
const Europe = Channel.union([Placed, Refunded])

const program = Effect.gen(function*() {
  const lines = yield* Queue.unbounded<string>()

  yield* Subscription.make(AnyPlaced, {
    group: "totals",
    handler: ({ channel, payload }) => Queue.offer(lines, `totals: ${payload.total} on ${channel}`)
  })
  yield* Subscription.make(AnyOrder, {
    group: "audit",
    handler: ({ channel }) => Queue.offer(lines, `audit: ${channel}`)
  })
  yield* Subscription.make(Europe, {
    group: "europe",
    handler: (message) => {
      switch (message.channel) {
        case "orders.eu.placed":
          return Queue.offer(lines, `europe: ${message.payload.id} costs ${message.payload.total}`)
        case "orders.eu.refunded":
          return Queue.offer(lines, `europe: ${message.payload.order} came back, ${message.payload.reason}`)
      }
    }
  })

  // None of these channels exists yet. The running subscriptions pick them up as they appear.
  const publishing = [
    Publisher.publish(Placed, { id: "o-1", total: 42 }),
    Publisher.publish(Refunded, { order: "o-1", reason: "damaged" }),
    Publisher.publish(UsPlaced, { id: "o-2", total: 7 })
  ]
  yield* Effect.all(publishing)
  // 2 of "totals", 3 of "audit", 2 of "europe"; between groups there is no order.
  for (const line of (yield* Queue.takeN(lines, 7)).toSorted()) yield* Console.log(line)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
