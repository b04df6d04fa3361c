/**
 * 2. Groups: every group gets every message; the consumers of one group share them; a failure concerns only its own group.
 *
 *     node --conditions=rotif-source examples/02-groups.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Latch, Schedule, Schema } from "effect"
import { Channel, Publisher, Retry, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })

class CardDeclined extends Data.TaggedError("CardDeclined")<{ readonly message: string }> {}
class GatewayDown extends Data.TaggedError("GatewayDown")<{ readonly message: string }> {}

const ids = ["o-1", "o-2", "o-3", "o-4", "o-5", "o-6"]

const program = Effect.gen(function*() {
  const done = yield* Latch.make()
  const account = { mail: new Set<string>(), billing: new Set<string>(), attempts: new Map<string, number>() }
  const workers = new Set<string>()
  // Six mails, five payments: the sixth is declined for good.
  const check = Effect.suspend(() => account.mail.size === 6 && account.billing.size === 5 ? done.open : Effect.void)

  const mail = yield* Subscription.make(OrderPlaced, {
    group: "mail",
    handler: ({ payload }) => Effect.andThen(Effect.sync(() => account.mail.add(payload.id)), check)
  })

  // Two consumers in one group. They could be two processes; nothing would change.
  const worker = (name: string) =>
    Subscription.make(OrderPlaced, {
      group: "billing",
      consumer: name,
      prefetch: 0,
      handler: Effect.fnUntraced(function*(message) {
        workers.add(name)
        account.attempts.set(message.payload.id, message.attempt)
        yield* Effect.sleep("20 millis")
        if (message.payload.id === "o-3") return yield* new CardDeclined({ message: "insufficient funds" })
        if (message.payload.id === "o-5" && message.attempt < 3) return yield* new GatewayDown({ message: "no answer" })
        account.billing.add(message.payload.id)
        yield* check
      }),
      // A decision for every error of the handler: an error that is missing here does not compile.
      retry: Retry.make({
        CardDeclined: Retry.term,
        GatewayDown: Schedule.exponential("50 millis").pipe(Schedule.upTo({ times: 5 }))
      })
    })
  const first = yield* worker("worker-1")
  const second = yield* worker("worker-2")

  yield* Publisher.publishAll(OrderPlaced, ids.map((id) => ({ id })))
  yield* done.await

  // A drained subscription has settled everything it took.
  yield* Effect.forEach([mail, first, second], (subscription) => subscription.drain)
  const counts = yield* Effect.forEach([mail, first, second], (subscription) => subscription.stats)
  yield* Console.log(`mail handled ${[...account.mail].sort().join(" ")}`)
  yield* Console.log(`billing handled ${[...account.billing].sort().join(" ")} with ${workers.size} consumers`)
  yield* Console.log(`attempts at o-1: ${account.attempts.get("o-1")}, at o-5: ${account.attempts.get("o-5")}`)
  yield* Console.log(`given up by mail: ${counts[0]!.dead}, by billing: ${counts[1]!.dead + counts[2]!.dead}`)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
