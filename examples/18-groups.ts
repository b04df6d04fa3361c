/**
 * 18. Groups: pause a group in all processes for a migration, see who paused it, and go on.
 *
 *     node --conditions=rotif-source examples/18-groups.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, References, Schedule, Schema } from "effect"
import { Channel, Groups, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", { payload: Schema.Struct({ id: Schema.String }) })

const program = Effect.gen(function*() {
  const charged = yield* Deferred.make<void>()
  yield* Subscription.make(OrderPlaced, {
    group: "billing",
    // 100 dead letters within a minute would pause the group by themselves.
    pauseWhen: { dead: 100, within: "1 minute" },
    handler: ({ payload }) => Effect.andThen(Console.log(`charged ${payload.id}`), Deferred.succeed(charged, undefined))
  })

  yield* Groups.pause("billing", { reason: "migration of the ledger", by: "ops" })
  yield* Effect.repeat(Groups.isQuiet("billing"), {
    until: (isQuiet) => isQuiet,
    schedule: Schedule.spaced("20 millis")
  })
  yield* Console.log("quiet: nothing of billing is handled, in any process")
  yield* Publisher.publish(OrderPlaced, { id: "o-1" })

  for (const { group, lag, pauses } of yield* Groups.list) {
    yield* Console.log(`${group}: ${lag} waits; ${pauses.map(({ by, reason }) => `${reason}, by ${by}`).join()}`)
  }

  yield* Console.log("it goes on")
  yield* Groups.resume("billing")
  yield* Deferred.await(charged)
})

NodeRuntime.runMain(program.pipe(
  Effect.scoped,
  Effect.provide(backend()),
  // Without the lines with which each consumer tells of the pause.
  Effect.provideService(References.MinimumLogLevel, "Warn")
))
