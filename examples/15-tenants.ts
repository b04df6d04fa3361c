/**
 * 15. Tenants: a Rotif for each, built when it is first used. They share nothing: channels, groups, schedules and dead letters of one
 * tenant are unknown to all others.
 *
 *     node --conditions=rotif-source examples/15-tenants.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, LayerMap, Queue, Schema } from "effect"
import { Channel, Publisher, Scheduler, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Invoice = Channel.make("invoices", { payload: Schema.Struct({ id: Schema.String }) })

// With Redis: lookup: (tenant: string) => Rotif.layer({ url, prefix: `shop:${tenant}` })
class Tenants extends LayerMap.Service<Tenants>()("example/Tenants", {
  lookup: (tenant: string) => backend(undefined, `:${tenant}`),
  // A tenant that has not been used for this long is closed, with its connections and duties.
  idleTimeToLive: "1 minute"
}) {}

// Only the request knows its tenant; the code below it need not.
const invoice = (id: string) => Publisher.publish(Invoice, { id }, { id })
const remind = (id: string) => Publisher.publish(Invoice, { id }, { id: `remind-${id}`, delay: "1 day" })

const program = Effect.gen(function*() {
  const printed = yield* Queue.unbounded<string>()

  // The subscriptions of a tenant run as long as this scope, and keep the tenant open.
  const serve = Effect.fnUntraced(function*(tenant: string) {
    const context = yield* Tenants.contextEffect(tenant)
    yield* Subscription.make(Invoice, {
      group: "printer",
      handler: ({ payload }) => Queue.offer(printed, `${tenant} prints ${payload.id}`)
    }).pipe(Effect.provide(context))
  })
  yield* serve("acme")
  yield* serve("globex")

  const first = yield* invoice("i-1").pipe(Effect.provide(Tenants.get("acme")))
  yield* Console.log(`acme: ${first._tag}, ${yield* Queue.take(printed)}`)
  // The same id in another tenant is another message.
  const second = yield* invoice("i-1").pipe(Effect.provide(Tenants.get("globex")))
  yield* Console.log(`globex: ${second._tag}, ${yield* Queue.take(printed)}`)

  yield* remind("i-1").pipe(Effect.provide(Tenants.get("acme")))
  for (const tenant of ["globex", "acme"]) {
    const cancelled = yield* Scheduler.cancel(Invoice, "remind-i-1").pipe(Effect.provide(Tenants.get(tenant)))
    yield* Console.log(`${tenant}: ${cancelled ? "the reminder is cancelled" : "there is none"}`)
  }
})

program.pipe(Effect.scoped, Effect.provide(Tenants.layer), NodeRuntime.runMain)
