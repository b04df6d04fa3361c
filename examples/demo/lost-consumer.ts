/** The process that the demo kills: it takes orders for "shipping" and finishes none. */
import { NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect } from "effect"
import { Rotif, Subscription } from "rotif"
import { group, held, leaseMillis } from "./crash.ts"
import { OrderPlaced } from "./orders.ts"

const program = Effect.gen(function*() {
  let count = 0
  yield* Subscription.make(OrderPlaced, {
    group,
    concurrency: held,
    prefetch: 0,
    lease: leaseMillis,
    handler: () =>
      Effect.andThen(
        Effect.suspend(() => Console.log(`holds ${++count}`)),
        Effect.never
      )
  })
  yield* Console.log("joined")
  yield* Effect.never
})

const services = Effect.map(
  Config.all({ url: Config.Redacted("REDIS_URL"), prefix: Config.String("DEMO_PREFIX") }),
  ({ prefix, url }) => Rotif.layer({ url, prefix })
)

Effect.flatMap(services, (layer) => program.pipe(Effect.scoped, Effect.provide(layer))).pipe(NodeRuntime.runMain)
