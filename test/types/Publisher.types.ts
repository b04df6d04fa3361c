/** What does not compile when it is published. `tsc` checks this file; nothing runs it. */
import { Effect, Schema } from "effect"
import { Channel, Publisher } from "rotif"
import { expectTypeOf } from "vitest"

const Order = Channel.make("orders.placed", {
  payload: Schema.Struct({ id: Schema.String, total: Schema.Finite, at: Schema.Date })
})
const Notice = Channel.make("users.:userId.devices.:deviceId.notices", {
  payload: Schema.Struct({ text: Schema.String })
})
const order = { id: "o-1", total: 42, at: new Date(0) }
const notice = { text: "hi" }

// The payload.
Publisher.publish(Order, order)
// @ts-expect-error a field is missing
Publisher.publish(Order, { id: "o-1", total: 42 })
// @ts-expect-error a field has another type
Publisher.publish(Order, { ...order, total: "42" })
// @ts-expect-error a field that the schema does not have
Publisher.publish(Order, { id: "o-1", total: 42, at: new Date(0), color: "red" })
// @ts-expect-error what is published is the value, not its JSON
Publisher.publish(Order, { ...order, at: "1970-01-01T00:00:00Z" })
Publisher.publishAll(Order, [order, order])
// @ts-expect-error one of the payloads is wrong
Publisher.publishAll(Order, [order, notice])

// Params.
Publisher.publish(Notice, notice, { params: { userId: "42", deviceId: "1" } })
// @ts-expect-error a template channel wants its params
Publisher.publish(Notice, notice)
// @ts-expect-error options without the params
Publisher.publish(Notice, notice, { id: "welcome" })
// @ts-expect-error one of the params is missing
Publisher.publish(Notice, notice, { params: { userId: "42" } })
// @ts-expect-error a param that the template does not have
Publisher.publish(Notice, notice, { params: { userId: "42", deviceId: "1", tenant: "t" } })
// @ts-expect-error params are strings
Publisher.publish(Notice, notice, { params: { userId: 42, deviceId: "1" } })
// @ts-expect-error a channel without params takes none
Publisher.publish(Order, order, { params: { userId: "42" } })
// @ts-expect-error the same for many
Publisher.publishAll(Notice, [notice])
Publisher.publishAll(Notice, [notice], (payload, index) => {
  expectTypeOf(payload).toEqualTypeOf<{ readonly text: string }>()
  return { params: { userId: String(index), deviceId: payload.text } }
})
// @ts-expect-error the options made for each lack the params
Publisher.publishAll(Notice, [notice], () => ({ id: "x" }))

// Ordering keys.
Channel.make("orders", {
  payload: Order.payload,
  orderingKey: (payload, params) => {
    expectTypeOf(payload).toEqualTypeOf<{ readonly id: string; readonly total: number; readonly at: Date }>()
    // @ts-expect-error the channel has no params
    void params.userId
    return payload.id
  }
})
Channel.make("users.:userId.notices", {
  payload: Notice.payload,
  orderingKey: (_, params) => {
    expectTypeOf(params).toEqualTypeOf<{ readonly userId: string }>()
    return params.userId
  }
})
// @ts-expect-error a key is a text
Channel.make("orders", { payload: Order.payload, orderingKey: ({ total }) => total })
// @ts-expect-error a message without a key has null
Channel.make("orders", { payload: Order.payload, orderingKey: () => undefined })
Publisher.publish(Order, order, { orderingKey: "o-1" })
Publisher.publish(Order, order, { orderingKey: null })
// @ts-expect-error a key is a text
Publisher.publish(Order, order, { orderingKey: 1 })

// Options.
Publisher.publish(Order, order, { id: "o-1", headers: { trace: "1" } })
// @ts-expect-error headers are strings
Publisher.publish(Order, order, { headers: { trace: 1 } })
// @ts-expect-error an option that does not exist
Publisher.publish(Order, order, { ttl: 1 })
Publisher.publish(Order, order, { durability: { replicas: 1, timeout: "1 second" } })
Publisher.publish(Order, order, { durability: false })
// @ts-expect-error what is waited for has to be said
Publisher.publish(Order, order, { durability: true })

// What is known of a channel.
expectTypeOf<Channel.PayloadOf<typeof Order>>().toEqualTypeOf<
  { readonly id: string; readonly total: number; readonly at: Date }
>()
expectTypeOf<Channel.ParamsOf<typeof Notice>>().toEqualTypeOf<
  { readonly userId: string; readonly deviceId: string }
>()
expectTypeOf<Channel.ParamNames<"a.:.b">>().toBeNever()
expectTypeOf<Channel.ParamNames<string>>().toBeNever()
// @ts-expect-error a pattern is for subscribing
Publisher.publish(Channel.pattern("orders.*", { payload: Schema.String }), "x")

// What it gives and needs.
const published = Publisher.publish(Order, order)
expectTypeOf<Effect.Success<typeof published>>().toEqualTypeOf<Publisher.Receipt>()
expectTypeOf<Effect.Error<typeof published>>().toEqualTypeOf<Publisher.RequestError | Publisher.StoreError>()
expectTypeOf<Effect.Services<typeof published>>().toEqualTypeOf<Publisher.Publisher>()
const many = Publisher.publishAll(Order, [order])
expectTypeOf<Effect.Success<typeof many>>().toEqualTypeOf<ReadonlyArray<Publisher.Receipt>>()
expectTypeOf<Effect.Error<typeof many>>().toEqualTypeOf<Publisher.RequestError | Publisher.PublishIncomplete>()
