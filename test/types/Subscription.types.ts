/** What a handler sees, what its policy must decide, and what a subscription needs. `tsc` checks this file; nothing runs it. */
import { Context, Data, Effect, type Layer, Schedule, Schema, SchemaTransformation, type Scope, Stream } from "effect"
import { Batch, type Broker, Channel, type Message, Retry, Subscription } from "rotif"
import { expectTypeOf } from "vitest"

const Order = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, total: Schema.Finite }) })
const Refund = Channel.make("orders.refunded", {
  payload: Schema.Struct({ order: Schema.String, reason: Schema.String })
})
const Notice = Channel.make("users.:userId.notices", { payload: Schema.String })
const AnyOrder = Channel.pattern("orders.*", { payload: Schema.Union([Order.payload, Refund.payload]) })

class CardDeclined extends Data.TaggedError("CardDeclined")<{}> {}
class GatewayDown extends Data.TaggedError("GatewayDown")<{}> {}
class Untagged extends Error {}
class Gateway extends Context.Service<Gateway, { readonly charge: Effect.Effect<void, CardDeclined | GatewayDown> }>()(
  "test/Gateway"
) {}

Subscription.layer(Order, { ordering: "block", handler: () => Effect.void })
Subscription.layer(Order, { ordering: "none", handler: () => Effect.void })
// @ts-expect-error not yet
Subscription.layer(Order, { ordering: "park", handler: () => Effect.void })
// @ts-expect-error not yet
Subscription.layer(Order, { ordering: "skip", handler: () => Effect.void })

// What a handler sees.
Subscription.layer(Order, {
  handler: (message) => {
    expectTypeOf(message.channel).toEqualTypeOf<"orders.placed">()
    expectTypeOf(message.payload).toEqualTypeOf<{ readonly id: string; readonly total: number }>()
    // @ts-expect-error the payload has no such field
    void message.payload.amount
    // @ts-expect-error payloads are not changed
    message.payload.total = 1
    // @ts-expect-error the channel has no params
    void message.params.userId
    return message.ack
  }
})
Subscription.layer(Notice, {
  handler: ({ params, payload }) => {
    expectTypeOf(params).toEqualTypeOf<{ readonly userId: string }>()
    expectTypeOf(payload).toBeString()
    // @ts-expect-error the template has no such param
    void params.deviceId
    return Effect.void
  }
})
Subscription.layer(AnyOrder, {
  handler: (message) => {
    expectTypeOf(message.channel).toBeString()
    // @ts-expect-error only some of the payloads have it
    void message.payload.total
    return "total" in message.payload ? Effect.log(message.payload.total) : Effect.log(message.payload.reason)
  }
})

// A union of channels is told apart by the channel.
Subscription.layer(Channel.union([Order, Refund, Notice]), {
  handler: (message) => {
    switch (message.channel) {
      case "orders.placed":
        expectTypeOf(message.payload.total).toBeNumber()
        return Effect.void
      case "orders.refunded":
        expectTypeOf(message.payload.reason).toBeString()
        // @ts-expect-error that is a field of the other channel
        void message.payload.total
        return Effect.void
      case "users.:userId.notices":
        expectTypeOf(message.params.userId).toBeString()
        return Effect.void
      default:
        expectTypeOf(message).toBeNever()
        return Effect.void
    }
  }
})
Subscription.layer(Channel.union([Order, Refund]), {
  handler: (message) => {
    // @ts-expect-error the union has no such channel
    if (message.channel === "orders.lost") return Effect.void
    return Effect.void
  }
})
expectTypeOf<Message.Message<typeof Order>["id"]>().toBeString()

// A policy decides about every error of the handler, and about nothing more than tags.
const charge = () => Gateway.use((gateway) => gateway.charge)
Subscription.layer(Order, {
  handler: charge,
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Schedule.exponential("200 millis") })
})
Subscription.layer(Order, {
  handler: charge,
  // @ts-expect-error nothing is decided about GatewayDown
  retry: Retry.make({ CardDeclined: Retry.term })
})
Subscription.layer(Order, {
  handler: () => Effect.fail(new Untagged()),
  // @ts-expect-error an error without a tag counts as "Error"
  retry: Retry.make({ CardDeclined: Retry.term })
})
Subscription.layer(Order, { handler: () => Effect.fail(new Untagged()), retry: Retry.make({ Error: Retry.term }) })
Subscription.layer(Order, {
  handler: () => Effect.fail(new Retry.RetryAfter({ delay: "1 minute", message: "busy" })),
  retry: Retry.make({})
})
// @ts-expect-error neither a schedule nor a decision
Retry.make({ CardDeclined: "later" })
Subscription.layer(Order, { handler: charge, retry: "5 seconds" })
Subscription.layer(Order, { handler: charge, retry: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 3 })) })
Subscription.layer(Order, {
  handler: charge,
  retry: Schedule.spaced("1 second").pipe(
    Schedule.setInputType<CardDeclined | GatewayDown>(),
    Schedule.while(({ input }) => input._tag === "GatewayDown")
  )
})
Subscription.layer(Order, {
  handler: charge,
  // @ts-expect-error the schedule knows only one of the errors
  retry: Schedule.spaced("1 second").pipe(Schedule.setInputType<CardDeclined>())
})
Subscription.layer(Order, {
  handler: charge,
  retry: (attempt, _, error) => {
    expectTypeOf(error).toEqualTypeOf<CardDeclined | GatewayDown>()
    return attempt * 100
  }
})

// The same for handlers that are written in place, before or after the policy.
const InPlace = Subscription.layer(Order, {
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.release }),
  handler: (message) =>
    Effect.gen(function*() {
      if (message.payload.total > 100) return yield* new CardDeclined()
      yield* charge()
    })
})
expectTypeOf<Layer.Services<typeof InPlace>>().toEqualTypeOf<Gateway | Broker.Broker | Subscription.Subscriptions>()
Subscription.layer(Order, {
  handler: Effect.fn("charge")(function*(message) {
    expectTypeOf(message.payload.id).toBeString()
    yield* charge()
  }),
  // @ts-expect-error nothing is decided about GatewayDown
  retry: Retry.make({ CardDeclined: Retry.term })
})
Subscription.layer(Order, {
  handler: (message) => Effect.andThen(Effect.log(message.id), charge()),
  retry: (_attempt, _message, error) => {
    expectTypeOf(error).toEqualTypeOf<CardDeclined | GatewayDown>()
    return "1 second"
  }
})
Subscription.layer(Order, {
  handler: (message) => Effect.andThen(Effect.log(message.id), charge()),
  retry: Schedule.spaced("1 second").pipe(Schedule.setInputType<CardDeclined | GatewayDown>())
})
Subscription.layer(Order, {
  handler: (message) => Effect.andThen(Effect.log(message.id), charge()),
  // @ts-expect-error the schedule knows only one of the errors
  retry: Schedule.spaced("1 second").pipe(Schedule.setInputType<CardDeclined>())
})

// What a subscription needs, and how it fails.
const Billing = Subscription.layer(Order, { handler: charge })
expectTypeOf<Layer.Success<typeof Billing>>().toBeNever()
expectTypeOf<Layer.Error<typeof Billing>>().toEqualTypeOf<Subscription.InvalidSubscription | Broker.BrokerError>()
expectTypeOf<Layer.Services<typeof Billing>>().toEqualTypeOf<Gateway | Broker.Broker | Subscription.Subscriptions>()

const Plain = Subscription.layer(Order, { handler: () => Effect.scoped(Effect.addFinalizer(() => Effect.void)) })
expectTypeOf<Layer.Services<typeof Plain>>().toEqualTypeOf<Broker.Broker | Subscription.Subscriptions>()

const handle = Subscription.make(Order, { handler: charge })
expectTypeOf<Effect.Success<typeof handle>>().toEqualTypeOf<Subscription.Subscription>()
expectTypeOf<Effect.Services<typeof handle>>().toEqualTypeOf<
  Gateway | Broker.Broker | Subscription.Subscriptions | Scope.Scope
>()

// A schema that needs a service asks for it where it is used.
class Codes extends Context.Service<Codes, { readonly of: (text: string) => number }>()("test/Codes") {}
const Code = Schema.String.pipe(Schema.decodeTo(
  Schema.Number,
  SchemaTransformation.transformEffect({
    decode: (text: string) => Codes.useSync((codes) => codes.of(text)),
    encode: (code: number) => Effect.succeed(String(code))
  })
))
const Coded = Channel.make("coded", { payload: Code })
const CodedLive = Subscription.layer(Coded, { handler: ({ payload }) => Effect.log(payload) })
expectTypeOf<Layer.Services<typeof CodedLive>>().toEqualTypeOf<
  Codes | Broker.Broker | Subscription.Subscriptions
>()
const CodedUnion = Subscription.layer(Channel.union([Order, Coded]), { handler: () => Effect.void })
expectTypeOf<Layer.Services<typeof CodedUnion>>().toEqualTypeOf<
  Codes | Broker.Broker | Subscription.Subscriptions
>()

// The messages as a stream.
const stream = Subscription.stream(Channel.union([Order, Notice]))
expectTypeOf<Stream.Success<typeof stream>["channel"]>().toEqualTypeOf<"orders.placed" | "users.:userId.notices">()

// The settlements of a stream's messages fail only where that is asked for.
type StreamedOrder = Stream.Success<ReturnType<typeof Subscription.stream<typeof Order>>>
declare const streamed: StreamedOrder
expectTypeOf(streamed.payload).toEqualTypeOf<{ readonly id: string; readonly total: number }>()
const settledOrders = Subscription.stream(Order).pipe(Stream.mapEffect(({ ack }) => ack))
expectTypeOf<Stream.Error<typeof settledOrders>>().toEqualTypeOf<
  Subscription.InvalidSubscription | Broker.BrokerError | Broker.GroupRemoved
>()
const strict = Subscription.stream(Order, { leaseLost: "fail" }).pipe(Stream.mapEffect(({ ack }) => ack))
expectTypeOf<Extract<Stream.Error<typeof strict>, Message.LeaseLost>>().not.toBeNever()
// What `fail` takes may be said, and the policy is total over it.
Subscription.stream<typeof Order, CardDeclined>(Order, { retry: Retry.make({ CardDeclined: Retry.term }) }).pipe(
  Stream.mapEffect((message) => message.fail(new CardDeclined()))
)
Subscription.stream<typeof Order, CardDeclined>(Order, { retry: Retry.make({ CardDeclined: Retry.term }) }).pipe(
  // @ts-expect-error it was not said
  Stream.mapEffect((message) => message.fail(new GatewayDown()))
)
Subscription.stream<typeof Order, CardDeclined | GatewayDown>(Order, {
  // @ts-expect-error one of the errors has no decision
  retry: Retry.make({ CardDeclined: Retry.term })
})

// An attempt has a scope: a layer needs none, and another service is still needed.
const opening = Subscription.layer(Order, {
  handler: () => Effect.andThen(Effect.addFinalizer(() => Effect.void), Gateway.use(({ charge }) => charge))
})
expectTypeOf<Layer.Services<typeof opening>>().toEqualTypeOf<Gateway | Broker.Broker | Subscription.Subscriptions>()

// A batch: its messages, its outcomes, and the errors of both that its policy decides about.
Subscription.batchLayer(Order, {
  size: 10,
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.nack("1 second") }),
  handler: Effect.fnUntraced(function*(messages) {
    expectTypeOf(messages[0]!.payload).toEqualTypeOf<{ readonly id: string; readonly total: number }>()
    if (messages.length > 5) return yield* new GatewayDown()
    return new Map(messages.map((message) => [message, Batch.fail(new CardDeclined())]))
  })
})
// @ts-expect-error a batch has a size
Subscription.batchLayer(Order, { handler: () => Effect.void })
// @ts-expect-error outcomes without their messages
Subscription.batchLayer(Order, { size: 10, handler: (messages) => Effect.succeed(messages.map(() => Batch.ack)) })
