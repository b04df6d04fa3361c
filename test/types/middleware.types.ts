/** What middleware adds to the types of a publish and of a subscription. `tsc` checks this file; nothing runs it. */
import { Cause, Context, Data, Effect, Layer, Schedule, Schema, type Scope } from "effect"
import type { CircuitBreaker, CircuitBreakerError } from "effect/persistence/CircuitBreaker"
import type { RateLimiter, RateLimiterError } from "effect/persistence/RateLimiter"
import type { Broker } from "rotif"
import { Channel, Middleware, Publisher, Retry, Rotif, Subscription } from "rotif"
import { expectTypeOf } from "vitest"

class Quota extends Data.TaggedError("Quota")<{ readonly left: number }> {}
class Declined extends Data.TaggedError("Declined")<{ readonly code: number }> {}
class Forbidden extends Data.TaggedError("Forbidden")<{ readonly user: string }> {}
class Tenants extends Context.Service<Tenants, { readonly left: Effect.Effect<number> }>()("test/Tenants") {}
class CurrentUser extends Context.Service<CurrentUser, { readonly name: string }>()("test/CurrentUser") {}
class Users extends Context.Service<Users, { readonly find: (id: string) => Effect.Effect<string, Forbidden> }>()(
  "test/Users"
) {}

const Order = Channel.make("orders.:shop.placed", { payload: Schema.Struct({ id: Schema.String }) })
const order = { id: "o-1" }
const params = { shop: "s" }

type PlainError = Publisher.RequestError | Publisher.StoreError

// Constructors.
const quota = Middleware.publish((next) => (request) =>
  Effect.gen(function*() {
    const left = yield* (yield* Tenants).left
    if (left === 0) return yield* new Quota({ left })
    return yield* next(request)
  })
)
expectTypeOf(quota).toEqualTypeOf<Middleware.Publish<Quota, Tenants>>()
const region = Middleware.publish((next) => (request) => next(Middleware.withHeaders(request, { region: "eu" })))
expectTypeOf(region).toEqualTypeOf<Middleware.Publish>()
const again = Middleware.publish((next) => (request) =>
  Effect.retry(next(request), { schedule: Schedule.recurs(2), while: (error) => "_tag" in error })
)
expectTypeOf(again).toEqualTypeOf<Middleware.Publish>()
const skip = Middleware.process((next) => (message) => message.attempt > 3 ? Effect.void : next(message))
expectTypeOf(skip).toEqualTypeOf<Middleware.Process>()
const authorised = Middleware.process((next) => (message) =>
  message.headers["user"] === undefined ? Effect.fail(new Forbidden({ user: "" })) : next(message)
)
expectTypeOf(authorised).toEqualTypeOf<Middleware.Process<Forbidden>>()
const user = Middleware.providing<CurrentUser>()((next) => (message) =>
  Effect.flatMap(
    Users.use((users) => users.find(message.headers["user"] ?? "")),
    (name) => Effect.provideService(next(message), CurrentUser, { name })
  )
)
expectTypeOf(user).toEqualTypeOf<Middleware.Process<Forbidden, Users, CurrentUser>>()
// @ts-expect-error a request is made from the one that was given
Middleware.publish((next) => ({ channel, options }) => next({ channel, options, payload: 1, id: "" }))

// Publishing: the errors and services of the channel's middleware are those of a publish to it.
const Limited = Middleware.forChannel(Order, quota, region)
expectTypeOf(Publisher.publish(Order, order, { params })).toEqualTypeOf<
  Effect.Effect<Publisher.Receipt, PlainError, Publisher.Publisher>
>()
expectTypeOf(Publisher.publish(Limited, order, { params })).toEqualTypeOf<
  Effect.Effect<Publisher.Receipt, PlainError | Quota, Publisher.Publisher | Tenants>
>()
expectTypeOf(Publisher.publishAll(Limited, [order], { params })).toEqualTypeOf<
  Effect.Effect<
    ReadonlyArray<Publisher.Receipt>,
    Publisher.RequestError | Publisher.PublishIncomplete | Quota,
    Publisher.Publisher | Tenants
  >
>()
// @ts-expect-error it still wants its params
Publisher.publish(Limited, order)
// @ts-expect-error and its payload
Publisher.publish(Limited, { id: 1 }, { params })
const validated = Middleware.validation(Order, ({ id }) => id !== "")
const Twice = Middleware.forChannel(Limited, validated)
expectTypeOf<Middleware.PublishErrors<typeof Twice>>().toEqualTypeOf<Quota | Middleware.ValidationError>()
expectTypeOf<Middleware.PublishServices<typeof Twice>>().toEqualTypeOf<Tenants>()
expectTypeOf<Channel.ParamsOf<typeof Twice>>().toEqualTypeOf<{ readonly shop: string }>()
// @ts-expect-error another payload
Middleware.validation(Order, ({ total }) => total > 0)
// @ts-expect-error a middleware of handling has no place around a publish
Middleware.forChannel(Order, skip)

// Handling: errors are for the policy, services are needed by the subscription.
const handler = () => Effect.fail(new Declined({ code: 1 }))
const plain = Subscription.make(Order, { handler })
const subscribed = Subscription.make(Order, {
  middleware: [authorised, Middleware.timeout("1 second")],
  handler,
  retry: Retry.make({ Declined: Retry.term, Forbidden: Retry.term, TimeoutError: Schedule.recurs(1) })
})
expectTypeOf(subscribed).toEqualTypeOf<typeof plain>()
Subscription.make(Order, {
  middleware: [authorised],
  handler,
  // @ts-expect-error the error of a middleware is not decided about
  retry: Retry.make({ Declined: Retry.term })
})
expectTypeOf(Subscription.layer(Order, {
  middleware: [user],
  handler: () => Effect.flatMap(CurrentUser, ({ name }) => Effect.log(name))
})).toEqualTypeOf<
  Layer.Layer<
    never,
    Subscription.InvalidSubscription | Broker.BrokerError,
    Users | Broker.Broker | Subscription.Subscriptions
  >
>()
// Middleware of both sides, written in place.
expectTypeOf(Subscription.make(Order, {
  middleware: [Middleware.hooks({ beforeProcess: () => {} }), Middleware.tracing(), user, Middleware.logging()],
  retry: Retry.make({ Declined: Retry.term, Forbidden: Retry.term }),
  handler
})).toEqualTypeOf<
  Effect.Effect<
    Subscription.Subscription,
    Subscription.InvalidSubscription | Broker.BrokerError,
    Users | Broker.Broker | Subscription.Subscriptions | Scope.Scope
  >
>()
expectTypeOf(
  Publisher.publish(Middleware.forChannel(Order, Middleware.tracing(), Middleware.logging()), order, { params })
)
  .toEqualTypeOf<Effect.Effect<Publisher.Receipt, PlainError, Publisher.Publisher>>()
const asks = Middleware.process((next) => (message) => Effect.andThen(CurrentUser, next(message)))
// What a middleware provides, it provides to those after it.
expectTypeOf<Middleware.ProcessServices<readonly [typeof user, typeof asks], Tenants>>().toEqualTypeOf<
  Users | Tenants
>()
expectTypeOf<Middleware.ProcessServices<readonly [typeof asks, typeof user], Tenants>>().toEqualTypeOf<
  CurrentUser | Users | Tenants
>()
expectTypeOf<Middleware.ProcessServices<ReadonlyArray<typeof user>, CurrentUser>>().toEqualTypeOf<
  CurrentUser | Users
>()
// @ts-expect-error a middleware of publishing has no place around a handler
Subscription.make(Order, { middleware: [quota], handler })

// The program's: what it needs is needed by its layer, what it fails with is not seen.
expectTypeOf(Middleware.layer(quota, user, Middleware.tracing(), Middleware.metrics(), Middleware.logging()))
  .toEqualTypeOf<Layer.Layer<never, never, Tenants | Users>>()
expectTypeOf(Rotif.layerMemory.pipe(Layer.provide(Middleware.layer(quota)))).toEqualTypeOf<
  Layer.Layer<Rotif.Services, never, Tenants>
>()
// @ts-expect-error an error that is not an object could not be told from those of the handler
Middleware.layer(Middleware.process((next) => (message) => Effect.andThen(Effect.fail("no"), next(message))))

// Hooks: each with its own errors and services.
expectTypeOf(Middleware.hooks({
  beforePublish: () => Effect.fail(new Quota({ left: 0 })),
  afterPublish: () => Effect.andThen(Tenants, Effect.fail("forgotten")),
  beforeProcess: () => Effect.fail(new Forbidden({ user: "" })),
  afterProcess: () => {},
  onError: ({ cause }) => Effect.andThen(Users, Effect.logError(Cause.pretty(cause)))
})).toEqualTypeOf<Middleware.Publish<Quota, Tenants | Users> & Middleware.Process<Forbidden, Users>>()
const hooked = Middleware.hooks({ beforePublish: () => Effect.fail(new Quota({ left: 0 })) })
expectTypeOf<Middleware.PublishErrors<Middleware.ForChannel<typeof Order, readonly [typeof hooked]>>>().toEqualTypeOf<
  Quota
>()

// The shipped ones.
expectTypeOf(Middleware.rateLimit({ limit: 1, window: "1 second" })).toEqualTypeOf<
  Middleware.Publish<RateLimiterError, RateLimiter> & Middleware.Process<RateLimiterError, RateLimiter>
>()
expectTypeOf(Middleware.circuitBreaker()).toEqualTypeOf<
  Middleware.Publish<CircuitBreakerError, CircuitBreaker> & Middleware.Process<CircuitBreakerError, CircuitBreaker>
>()
