/**
 * 9. Middleware: code around every publish and every message of a program, around one channel, or around one subscription.
 *
 *     node --conditions=rotif-source examples/09-middleware.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Data, Effect, Layer, Queue, Schema } from "effect"
import { Channel, Middleware, Publisher, Retry, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", {
  payload: Schema.Struct({ id: Schema.String, cents: Schema.Int })
})

class QuotaExceeded extends Data.TaggedError("QuotaExceeded")<{ readonly tenant: string }> {}
class Tenant extends Context.Service<Tenant, { readonly name: string }>()("example/Tenant") {}

// A middleware receives `next`, the rest of the chain, and returns a replacement. This one adds a header to every message.
const stamped = Middleware.publish((next) => (request) => next(Middleware.withHeaders(request, { region: "eu" })))

// It may refuse a publish, with an error that is in the type of every publish to its channel.
const quota = Middleware.publish((next) => (request) =>
  request.options.headers?.["tenant"] === "greedy"
    ? Effect.fail(new QuotaExceeded({ tenant: "greedy" }))
    : next(request)
)

// Around a handler it may provide a service that the handler needs.
const tenant = Middleware.providing<Tenant>()((next) => (message) =>
  Effect.provideService(next(message), Tenant, { name: message.headers["tenant"] ?? "nobody" })
)

// Some come with Rotif.
const worthSomething = Middleware.validation(OrderPlaced, ({ cents }) => cents > 0 || "an order costs something")
const Orders = Middleware.forChannel(OrderPlaced, quota, worthSomething)

const program = Effect.gen(function*() {
  const handled = yield* Queue.unbounded<string>()

  yield* Subscription.make(OrderPlaced, {
    group: "billing",
    middleware: [
      tenant,
      Middleware.hooks({
        beforeProcess: ({ attempt, headers }) => Console.log(`attempt ${attempt}, from ${headers["region"]}`),
        afterProcess: () => Console.log("charged")
      }),
      Middleware.timeout("5 seconds")
    ],
    // The retry policy also decides about errors of the subscription's middleware.
    retry: Retry.make({ TimeoutError: Retry.nack("1 second") }),
    handler: ({ payload }) => Effect.flatMap(Tenant, ({ name }) => Queue.offer(handled, `${payload.id} of ${name}`))
  })

  yield* Publisher.publish(Orders, { id: "o-1", cents: 4200 }, { headers: { tenant: "ada" } })
  yield* Console.log(yield* Queue.take(handled))

  const refused = (order: typeof OrderPlaced.payload.Type, from: string) =>
    Publisher.publish(Orders, order, { headers: { tenant: from } }).pipe(
      Effect.as("published"),
      Effect.catchTags({
        QuotaExceeded: (error) => Effect.succeed(`refused: too many from ${error.tenant}`),
        ValidationError: (error) => Effect.succeed(`refused: ${error.message}`)
      })
    )
  yield* Console.log(yield* refused({ id: "o-2", cents: 1 }, "greedy"))
  yield* Console.log(yield* refused({ id: "o-3", cents: 0 }, "ada"))
})

// The first one given is the outermost. The program's middleware is around that of a channel or subscription.
const Everywhere = Middleware.layer(Middleware.logging({ failure: "Debug" }), stamped)

program.pipe(
  Effect.scoped,
  Effect.provide(backend().pipe(Layer.provide(Everywhere))),
  NodeRuntime.runMain
)
