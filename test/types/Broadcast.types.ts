/** What does not compile in Pub/Sub mode, and what a listener is known to get. `tsc` checks this file; nothing runs it. */
import type { Layer, Stream } from "effect"
import { Context, Effect, Schema } from "effect"
import type { Broker } from "rotif"
import { Broadcast, Channel } from "rotif"
import { expectTypeOf } from "vitest"

const Order = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, at: Schema.Date }) })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })
const Orders = Channel.pattern("orders.*", { payload: Schema.Struct({ id: Schema.String }) })

class Store extends Context.Service<Store, { readonly put: (id: string) => Effect.Effect<void> }>()("Store") {}

// Publishing.
Broadcast.publish(Order, { id: "o-1", at: new Date(0) }, { headers: { a: "b" } })
Broadcast.publish(Notice, "hi", { params: { userId: "42" } })
// @ts-expect-error a field is missing
Broadcast.publish(Order, { id: "o-1" })
// @ts-expect-error a template channel wants its params
Broadcast.publish(Notice, "hi")
// @ts-expect-error nothing is stored, so nothing is deduplicated
Broadcast.publish(Order, { id: "o-1", at: new Date(0) }, { id: "x" })
// @ts-expect-error the same for many
Broadcast.publishAll(Notice, ["hi"])
// @ts-expect-error a pattern is for listening
Broadcast.publish(Orders, { id: "o-1" })

// Listening.
expectTypeOf(Broadcast.subscribe(Order)).toExtend<
  Stream.Stream<Broadcast.Message<typeof Order>, Broadcast.InvalidListener | Broker.BrokerError, Broadcast.Broadcast>
>()
declare const any: Broadcast.Message<typeof Orders>
expectTypeOf(any.channel).toEqualTypeOf<string>()
expectTypeOf(any.payload).toEqualTypeOf<{ readonly id: string }>()
expectTypeOf(any.params).toEqualTypeOf<Readonly<Record<string, string>>>()
expectTypeOf(any.headers).toEqualTypeOf<Readonly<Record<string, string>>>()
Broadcast.listen(Channel.union([Order, Notice]), {
  handler: (message) => {
    if (message.channel === "orders.placed") expectTypeOf(message.payload.at).toEqualTypeOf<Date>()
    else expectTypeOf(message.params.userId).toEqualTypeOf<string>()
    return Effect.void
  }
})

// What handlers and callbacks need, the listener needs; what they fail with, it reports itself.
const layer = Broadcast.layerListener(Order, {
  handler: ({ payload }) => Store.use((store) => Effect.andThen(store.put(payload.id), Effect.fail("no"))),
  onGap: (gap) => gap.reason === "overflow" ? Effect.log(gap.dropped) : Effect.void
})
expectTypeOf<typeof layer>().toExtend<
  Layer.Layer<
    never,
    Broadcast.InvalidListener | Broker.BrokerError,
    Store | Broadcast.Broadcast
  >
>()
// @ts-expect-error `onGap` must not fail
Broadcast.subscribe(Order, { onGap: () => Effect.fail("no") })
