/** What the compiler has to accept and to refuse about retry policies and dead letters. */
import { Cause, Data, Effect, Schedule, Schema } from "effect"
import type { Result } from "effect"
import { Channel, DeadLetters, Retry, Subscription } from "rotif"

const Order = Schema.Struct({ id: Schema.String, total: Schema.Finite })
const Orders = Channel.make("orders.placed", { payload: Order })
const Notices = Channel.make("users.:userId.notices", { payload: Schema.Struct({ text: Schema.String }) })

class CardDeclined extends Data.TaggedError("CardDeclined")<{ readonly code: number }> {}
class GatewayDown extends Data.TaggedError("GatewayDown")<{}> {}

declare const charge: (order: typeof Order.Type) => Effect.Effect<void, CardDeclined | GatewayDown>

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const check = <_ extends true>() => {}

/** The record is total over the errors of the handler. */

export const total = Subscription.make(Orders, {
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.exponential("200 millis", { times: 5 }) }),
  handler: (message) => charge(message.payload)
})

export const handlerFirst = Subscription.make(Orders, {
  handler: (message) => charge(message.payload),
  retry: Retry.make({ CardDeclined: Retry.nack("1 minute"), GatewayDown: Schedule.spaced("1 second") })
})

export const asLayer = Subscription.layer(Orders, {
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.release }),
  handler: (message) => charge(message.payload)
})

export const moreThanNeeded = Subscription.make(Orders, {
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.release, Other: Retry.term }),
  handler: (message) => charge(message.payload)
})

export const missing = Subscription.make(Orders, {
  // @ts-expect-error nothing is decided about GatewayDown
  retry: Retry.make({ CardDeclined: Retry.term }),
  handler: (message) => charge(message.payload)
})

export const missingInLayer = Subscription.layer(Orders, {
  // @ts-expect-error nothing is decided about CardDeclined
  retry: Retry.make({ GatewayDown: Retry.term }),
  handler: (message) => charge(message.payload)
})

export const untagged = Subscription.make(Orders, {
  retry: Retry.make({ CardDeclined: Retry.term, Error: Retry.term }),
  handler: () => Effect.fail<CardDeclined | Error>(new Error("an error without a tag counts as Error"))
})

export const untaggedMissing = Subscription.make(Orders, {
  // @ts-expect-error nothing is decided about errors without a tag
  retry: Retry.make({ CardDeclined: Retry.term }),
  handler: () => Effect.fail<CardDeclined | Error>(new Error(""))
})

export const ownTimeout = Subscription.make(Orders, {
  // @ts-expect-error the handler's own timeout is one of its errors
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.term }),
  handler: (message) => Effect.timeout(charge(message.payload), "1 second")
})

export const subscriptionTimeout = Subscription.make(Orders, {
  timeout: "1 second",
  retry: Retry.make({ CardDeclined: Retry.term, GatewayDown: Retry.term }),
  handler: (message) => charge(message.payload)
})

export const wish = Subscription.make(Orders, {
  retry: Retry.make({ CardDeclined: Retry.term }),
  handler: () => Effect.fail<CardDeclined | Retry.RetryAfter>(new Retry.RetryAfter({ delay: "1 minute", message: "" }))
})

export const noErrors = Subscription.make(Orders, { retry: Retry.make({}), handler: () => Effect.void })

export const wrongDecision = Retry.make({
  // @ts-expect-error a delay alone is no decision
  CardDeclined: 1000
})

/** One rule for every error. */

export const schedule = Subscription.make(Orders, {
  retry: Schedule.exponential("200 millis"),
  handler: (message) => charge(message.payload)
})

export const scheduleOfErrors = Subscription.make(Orders, {
  retry: Schedule.spaced("1 second").pipe(
    Schedule.setInputType<CardDeclined | GatewayDown>(),
    Schedule.while(({ input }) => input._tag === "GatewayDown")
  ),
  handler: (message) => charge(message.payload)
})

export const scheduleOfOthers = Subscription.make(Orders, {
  // @ts-expect-error the schedule wants another input
  retry: Schedule.spaced("1 second").pipe(Schedule.setInputType<{ readonly retryAfter: number }>()),
  handler: (message) => charge(message.payload)
})

export const delay = Subscription.make(Orders, {
  retry: "5 seconds",
  handler: (message) => charge(message.payload)
})

export const byFunction = Subscription.make(Orders, {
  handler: (message) => charge(message.payload),
  retry: (attempt, message, error) => {
    check<Same<typeof attempt, number>>()
    check<Same<typeof message.payload.total, number>>()
    check<Same<typeof error, CardDeclined | GatewayDown>>()
    return error._tag === "CardDeclined" ? Retry.term : attempt * message.payload.total
  }
})

export const byFunctionWrong = Subscription.make(Orders, {
  // @ts-expect-error a function answers with a delay or a decision
  retry: () => true,
  handler: (message) => charge(message.payload)
})

export const byName = Subscription.make(Orders, {
  retry: "gentle",
  handler: (message) => charge(message.payload)
})

export const streamByName = Subscription.stream(Orders, { retry: "gentle" })

export const named = Retry.layer({
  default: "1 second",
  policies: {
    gentle: Schedule.exponential("1 second"),
    byFunction: (attempt, message, error) => {
      check<Same<typeof error, unknown>>()
      check<Same<typeof message, Retry.MessageInfo>>()
      return attempt * 1_000
    }
  }
})

// It need not be provided: no effect asks for it.
export const needsNoPolicies: Effect.Effect<Retry.Retry> = Effect.gen(function*() {
  return yield* Retry.Retry
})

export const namedByTag = Retry.layer({
  // @ts-expect-error a policy by name has to decide about any error
  policies: { payments: Retry.make({ CardDeclined: Retry.term }) }
})

export const defaultByName = Retry.layer({
  // @ts-expect-error the default is a policy itself
  default: "gentle"
})

check<Same<Retry.TagOf<CardDeclined | Cause.TimeoutError | Error>, "CardDeclined" | "TimeoutError" | "Error">>()
check<Same<Retry.TagOf<never>, never>>()

/** Dead letters: typed by their source. */

export const raw = DeadLetters.subscribe({
  handler: (letter) => {
    check<Same<typeof letter.raw, string>>()
    // @ts-expect-error without a source there is no payload
    return Effect.succeed(letter.payload)
  }
})

export const typed = DeadLetters.subscribe(Notices, {
  name: "alerts",
  handler: (letter) => {
    check<Same<typeof letter.channel, "users.:userId.notices">>()
    check<Same<typeof letter.params.userId, string>>()
    check<Same<typeof letter.payload, Result.Result<{ readonly text: string }, Channel.InvalidPayload>>>()
    return letter.ack
  }
})

export const unionOfTwo = DeadLetters.subscribe(Channel.union([Orders, Notices]), {
  handler: (letter) => {
    if (letter.channel === "orders.placed") {
      check<Same<typeof letter.payload, Result.Result<typeof Order.Type, Channel.InvalidPayload>>>()
    }
    return letter.keep
  }
})

export const edited = DeadLetters.requeue("0:1-0", { channel: Orders, payload: { id: "o-1", total: 1 } })

export const editedWrong = DeadLetters.requeue("0:1-0", {
  channel: Orders,
  // @ts-expect-error not a payload of the channel
  payload: { id: "o-1", total: "1" }
})
