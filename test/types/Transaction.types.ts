/** What a transactional handler needs and what is given to it. `tsc` checks this file; nothing runs it. */
import { Context, Effect, type Layer, Schema } from "effect"
import { type Broker, Channel, Deduplication, Publisher, Subscription, Transaction } from "rotif"
import { expectTypeOf } from "vitest"

const Text = Channel.make("texts", { payload: Schema.String, idempotencyKey: (text) => text })
const Notice = Channel.make("users.:userId.notices", { payload: Schema.Int })

class Mailer extends Context.Service<Mailer, { readonly send: Effect.Effect<void> }>()("test/Mailer") {}

type Needs<L> = L extends Layer.Layer<infer _A, infer _E, infer R> ? R : never

// The transaction is given to the handler; everything else is asked for.
const transactional = Subscription.layer(Text, {
  transactional: true,
  handler: Effect.fnUntraced(function*(message) {
    expectTypeOf(message.payload).toBeString()
    yield* Transaction.publish(Notice, 1, { params: { userId: "42" }, delay: "1 minute" })
    yield* Transaction.set(yield* Transaction.key("x"), message.payload)
    yield* Mailer.use((mailer) => mailer.send)
  })
})
expectTypeOf<Needs<typeof transactional>>().toEqualTypeOf<
  Mailer | Publisher.Publisher | Broker.Broker | Subscription.Subscriptions
>()

// Without the option nobody gives it: the layer cannot be run.
const plain = Subscription.layer(Text, { handler: () => Transaction.publish(Text, "x") })
expectTypeOf<Needs<typeof plain>>().toEqualTypeOf<
  Transaction.Transaction | Publisher.Publisher | Broker.Broker | Subscription.Subscriptions
>()

// @ts-expect-error the channel has params
void Transaction.publish(Notice, 1)
// @ts-expect-error the payload is a number
void Transaction.publish(Notice, "1", { params: { userId: "42" } })
// @ts-expect-error what is incremented is incremented by a number
void Transaction.incrby("x", "1")

expectTypeOf(Transaction.set("k", "v")).toEqualTypeOf<
  Effect.Effect<void, Transaction.KeyRefused | Transaction.TransactionTooLarge, Transaction.Transaction | Broker.Broker>
>()

// The key of a message is made from the message.
void Subscription.layer(Notice, {
  exactlyOnce: {
    key: (message) => {
      expectTypeOf(message.payload).toBeNumber()
      expectTypeOf(message.params).toEqualTypeOf<{ readonly userId: string }>()
      return message.params.userId
    },
    ttl: "1 hour"
  },
  handler: () => Effect.void
})
void Subscription.layer(Text, {
  // @ts-expect-error a key is a string
  exactlyOnce: { key: (message) => message.payload.length },
  handler: () => Effect.void
})

// A channel makes ids from its payloads.
void Channel.make("numbers", {
  payload: Schema.Int,
  idempotencyKey: (n) => {
    expectTypeOf(n).toBeNumber()
    return String(n)
  }
})

// The errors of the effect pass, and those of the key come with them.
const once = Deduplication.once("k", "1 day", Effect.fail("no" as const) as Effect.Effect<number, "no", Mailer>)
expectTypeOf<Effect.Error<typeof once>>().toEqualTypeOf<
  "no" | Deduplication.InProgress | Deduplication.KeyLost | Deduplication.InvalidKey | Broker.BrokerError
>()
expectTypeOf<Effect.Success<typeof once>>().toEqualTypeOf<Deduplication.Outcome<number>>()
expectTypeOf<Effect.Services<typeof once>>().toEqualTypeOf<Mailer | Deduplication.Deduplication>()
