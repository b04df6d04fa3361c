/**
 * 7. Later: messages that wait for their first delivery, what can be done with them meanwhile, and messages that expire.
 *
 *     node --conditions=rotif-source examples/07-delayed.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Console, DateTime, Effect, Queue, Schema } from "effect"
import { Channel, Publisher, Scheduler, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Reminder = Channel.make("reminders", { payload: Schema.Struct({ text: Schema.String }) })

const program = Effect.gen(function*() {
  const reminded = yield* Queue.unbounded<string>()
  yield* Subscription.make(Reminder, {
    group: "mail",
    handler: ({ payload }) => Queue.offer(reminded, payload.text),
    // An expired message is dropped here; by default it would become a dead letter.
    expired: "drop"
  })

  // After a delay, or at a time. The receipt says when.
  const start = yield* Clock.currentTimeMillis
  const tea = yield* Publisher.publish(Reminder, { text: "the tea is ready" }, { delay: "300 millis" })
  yield* Publisher.publish(Reminder, { text: "stand up" }, { at: DateTime.makeUnsafe(start + 150) })
  yield* Publisher.publish(Reminder, { text: "that was yesterday" }, { at: "1999-12-31T23:59:59Z" })
  yield* Console.log(`the tea: ${tea._tag}`)

  for (const text of yield* Queue.takeN(reminded, 3)) yield* Console.log(text)
  const waited = (yield* Clock.currentTimeMillis) - start
  yield* Console.log(`not early: ${waited >= 299}`)

  // Until it is due, a message can be found by its channel and id.
  for (const id of ["dentist", "cinema", "taxes"]) {
    yield* Publisher.publish(Reminder, { text: id }, { id, delay: "1 day" })
  }
  yield* Console.log(`cancelled: ${yield* Scheduler.cancel(Reminder, "dentist")}`)
  yield* Console.log(`postponed: ${yield* Scheduler.reschedule(Reminder, "taxes", { delay: "365 days" })}`)
  yield* Console.log(`delivered now: ${yield* Scheduler.deliverNow(Reminder, "cinema")}`)
  yield* Console.log(yield* Queue.take(reminded))
  yield* Console.log(`too late to cancel: ${!(yield* Scheduler.cancel(Reminder, "cinema"))}`)

  const { messages } = yield* Scheduler.list({ channel: Reminder })
  yield* Console.log(`${yield* Scheduler.count(Reminder)} waits: ${messages.map(({ id }) => id).join(" ")}`)
  yield* Scheduler.cancel(Reminder, "taxes")
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
