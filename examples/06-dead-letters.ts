/**
 * 6. Dead letters: three groups, one fails; list what it gave up, repair it, requeue it, and archive the rest.
 *
 *     node --conditions=rotif-source examples/06-dead-letters.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Queue, Schema } from "effect"
import { Channel, DeadLetters, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const OrderPlaced = Channel.make("orders.placed", {
  payload: Schema.Struct({ id: Schema.String, country: Schema.String })
})

class NoTaxRate extends Data.TaggedError("NoTaxRate")<{ readonly message: string }> {}

const archived: Array<string> = []

const program = Effect.gen(function*() {
  const seen = yield* Queue.unbounded<string>()
  const listener = (group: string) =>
    Subscription.make(OrderPlaced, { group, handler: ({ payload }) => Queue.offer(seen, `${group} ${payload.id}`) })
  yield* listener("mail")
  yield* listener("stock")
  yield* Subscription.make(OrderPlaced, {
    group: "tax",
    maxRetries: 1,
    retryDelay: "5 millis",
    handler: ({ attempt, payload }) =>
      payload.country === "??"
        ? Effect.fail(new NoTaxRate({ message: `no rate for "${payload.country}"` }))
        : Queue.offer(seen, `tax ${payload.id}, attempt ${attempt}`)
  })
  const letters = yield* Queue.unbounded<string>()
  yield* DeadLetters.subscribe({ name: "alerts", handler: (letter) => Queue.offer(letters, letter.letterId) })

  yield* Publisher.publishAll(OrderPlaced, [{ id: "o-1", country: "FR" }, { id: "o-2", country: "??" }])
  const [repaired = ""] = yield* Queue.takeN(letters, 1)
  const handled = yield* Queue.takeN(seen, 5)
  yield* Console.log(handled.toSorted().join("; "))

  for (const letter of (yield* DeadLetters.list({ group: "tax", channel: "orders.*" })).letters) {
    yield* Console.log(
      `${letter.group} gave up ${letter.raw} after ${letter.attempt} attempts: ${letter.failure.message}`
    )
  }

  // Back to "tax" only, with a payload that the schema has checked.
  yield* DeadLetters.requeue(repaired, { channel: OrderPlaced, payload: { id: "o-2", country: "DE" } })
  yield* Console.log(`requeued: ${yield* Queue.take(seen)}`)

  // These are not repaired. When there are too many, the oldest is archived and then deleted.
  yield* Publisher.publishAll(OrderPlaced, [{ id: "o-3", country: "??" }, { id: "o-4", country: "??" }])
  yield* Queue.takeN(letters, 2)
  yield* Console.log(`the others saw: ${(yield* Queue.takeN(seen, 4)).toSorted().join("; ")}`)
  while ((yield* DeadLetters.count()) > 1) yield* Effect.sleep("10 millis")
  yield* Console.log(`archived: ${archived.join(" ")}`)
  for (const { channel, count, group, reason } of yield* DeadLetters.countBy()) {
    yield* Console.log(`left: ${count} of ${group} on ${channel}, ${reason}`)
  }
})

const retention = {
  maxCount: 1,
  interval: "50 millis",
  archive: (letters: ReadonlyArray<{ readonly raw: string }>) =>
    Effect.sync(() => archived.push(...letters.map(({ raw }) => raw)))
} as const

program.pipe(Effect.scoped, Effect.provide(backend({ deadLetters: retention })), NodeRuntime.runMain)
