/** The Promise API is typed by generics, by a map of channels, and by validators; without any of them everything is allowed. */
import { Schema } from "effect"
import {
  type ChannelName,
  type MatchingNames,
  type MessageOf,
  NotificationManager,
  type Notifications,
  type RotifMessage,
  type StandardSchema
} from "rotif/promise"
import { expectTypeOf } from "vitest"

interface Order {
  readonly id: string
  readonly total: number
}
interface Refund {
  readonly orderId: string
}

// Without a map: any name and any payload, or the one that is named.

const open = new NotificationManager({ redis: "memory" })
expectTypeOf(open).toEqualTypeOf<NotificationManager>()
void open.publish("orders.placed", { any: "thing" })
void open.publish<Order>("orders.placed", { id: "o-1", total: 1 })
// @ts-expect-error no Order
void open.publish<Order>("orders.placed", { id: "o-1" })
void open.subscribe("orders.*", (message) => {
  expectTypeOf(message).toEqualTypeOf<RotifMessage>()
  expectTypeOf(message.payload).toBeAny()
})
void open.subscribe<Order>("orders.*", (message) => {
  expectTypeOf(message.payload).toEqualTypeOf<Order>()
})
void open.publishBatch([{ channel: "a", payload: 1 }, { channel: "b", payload: "x", options: { delayMs: 1 } }])

// A map of channels.

interface Shop {
  "orders.placed": Order
  "orders.refunded": Refund
  "orders.eu.placed": Order
  "users.created": { readonly name: string }
}
const shop = new NotificationManager<Shop>({ redis: "memory" })
void shop.publish("orders.placed", { id: "o-1", total: 1 })
// @ts-expect-error another payload
void shop.publish("orders.placed", { orderId: "o-1" })
// @ts-expect-error a field too many
void shop.publish("orders.placed", { id: "o-1", total: 1, currency: "EUR" })
// @ts-expect-error no such channel
void shop.publish("orders.plced", { id: "o-1", total: 1 })
void shop.publishBatch([{ channel: "orders.placed", payload: { id: "o-1", total: 1 } }, {
  channel: "orders.refunded",
  payload: { orderId: "o-1" }
}])
// @ts-expect-error the payload of another channel
void shop.publishBatch([{ channel: "orders.refunded", payload: { id: "o-1", total: 1 } }])

void shop.subscribe("orders.placed", (message) => {
  expectTypeOf(message).toEqualTypeOf<RotifMessage<Order, "orders.placed">>()
})
void shop.subscribe("orders.*", (message) => {
  expectTypeOf(message.channel).toEqualTypeOf<"orders.placed" | "orders.refunded">()
  if (message.channel === "orders.refunded") expectTypeOf(message.payload).toEqualTypeOf<Refund>()
  else expectTypeOf(message.payload).toEqualTypeOf<Order>()
})
// @ts-expect-error no such channel
void shop.subscribe("orders.plced", () => {})

expectTypeOf<MatchingNames<ChannelName<Shop>, "**">>().toEqualTypeOf<ChannelName<Shop>>()
expectTypeOf<MatchingNames<ChannelName<Shop>, "orders.**">>().toEqualTypeOf<
  "orders.placed" | "orders.refunded" | "orders.eu.placed"
>()
expectTypeOf<MatchingNames<ChannelName<Shop>, "**.placed">>().toEqualTypeOf<"orders.placed" | "orders.eu.placed">()
expectTypeOf<MatchingNames<ChannelName<Shop>, "*.*">>().toEqualTypeOf<
  "orders.placed" | "orders.refunded" | "users.created"
>()
expectTypeOf<MatchingNames<ChannelName<Shop>, "orders.*.placed">>().toEqualTypeOf<"orders.eu.placed">()
expectTypeOf<MatchingNames<ChannelName<Shop>, "carts.*">>().toEqualTypeOf<never>()
expectTypeOf<MessageOf<Shop, "users.*">>().toEqualTypeOf<RotifMessage<{ readonly name: string }, "users.created">>()

// Validators give the map, and what each takes and makes.

declare const dated: StandardSchema<{ readonly at: string }, { readonly at: Date }>
const schemas = new NotificationManager({
  redis: "memory",
  channels: {
    "orders.placed": { schema: Schema.toStandardSchemaV1(Schema.Struct({ id: Schema.String })) },
    "orders.shipped": { schema: dated }
  }
})
void schemas.publish("orders.placed", { id: "o-1" })
void schemas.publish("orders.shipped", { at: "2027-01-01" })
// @ts-expect-error the validator takes a string
void schemas.publish("orders.shipped", { at: new Date(0) })
// @ts-expect-error no such channel
void schemas.publish("orders.lost", {})
void schemas.subscribe("orders.shipped", ({ payload }) => {
  expectTypeOf(payload).toEqualTypeOf<{ readonly at: Date }>()
})
void new NotificationManager<Shop>({
  channels: {
    "users.created": { schema: Schema.toStandardSchemaV1(Schema.Struct({ name: Schema.String })) }
  }
})
void new NotificationManager<Shop>({
  // @ts-expect-error a validator of another payload
  channels: { "users.created": { schema: dated } }
})

// Fakes.

expectTypeOf(shop).toExtend<Notifications<Shop>>()
const part: Pick<Notifications<Shop>, "publish"> = { publish: async () => "id" }
void part.publish("orders.placed", { id: "o-1", total: 1 })
