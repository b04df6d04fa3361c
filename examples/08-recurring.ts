/**
 * 8. Recurring messages: by an interval or by the calendar, each tick published once, however many processes run.
 *
 *     node --conditions=rotif-source examples/08-recurring.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, DateTime, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Scheduler, Subscription } from "rotif"
import { backend } from "./backend.ts"

const ReportWanted = Channel.make("reports.wanted", { payload: Schema.Struct({ kind: Schema.String }) })

const program = Effect.gen(function*() {
  const handled = yield* Queue.unbounded<{ readonly id: string; readonly kind: string }>()
  yield* Subscription.make(ReportWanted, {
    group: "reports",
    handler: ({ id, payload }) => Queue.offer(handled, { id, kind: payload.kind })
  })

  // By the calendar of a time zone: at 9 on working days, summer and winter. Of the ticks that no process published, the last is caught up.
  const { next } = yield* Scheduler.recurring("daily", "0 9 * * 1-5", ReportWanted, { kind: "daily" }, {
    timeZone: "Europe/Berlin",
    catchUp: "latest"
  })
  yield* Console.log(
    `the daily report comes at ${DateTime.toParts(DateTime.setZoneNamedUnsafe(next, "Europe/Berlin")).hour}`
  )

  // By an interval. The definition is stored: every process may define it when it starts, and each tick is published once.
  const beat = Scheduler.recurring("beat", { every: "100 millis" }, ReportWanted, { kind: "beat" }, {
    catchUp: { all: 100 }
  })
  yield* beat
  yield* beat

  const ticks = yield* Queue.takeN(handled, 3)
  const times = ticks.map(({ id }) => DateTime.toEpochMillis(DateTime.makeUnsafe(id.slice("beat@".length))))
  yield* Console.log(`beats: ${ticks.length}, ${times.map((time) => time - times[0]!).join(" ")} ms after the first`)

  const all = yield* Scheduler.listRecurring
  yield* Console.log(`defined: ${all.map(({ key }) => key).toSorted().join(" ")}`)
  yield* Console.log(
    `removed: ${yield* Scheduler.removeRecurring("beat")}, again: ${yield* Scheduler.removeRecurring("beat")}`
  )

  // Ticks that are already published are still delivered, and no more are published.
  yield* Publisher.publish(ReportWanted, { kind: "removed" })
  yield* Publisher.publish(ReportWanted, { kind: "last" }, { delay: "300 millis" })
  while ((yield* Queue.take(handled)).kind !== "removed");
  yield* Console.log(`then comes: ${(yield* Queue.take(handled)).kind}`)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
