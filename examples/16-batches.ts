/**
 * 16. Batches: many rows with one insert, an outcome for the row that is known to be bad, and a bad row that nobody knows.
 *
 *     node --conditions=rotif-source examples/16-batches.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Latch, Schema } from "effect"
import { Batch, Channel, DeadLetters, type Message, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"

const Row = Schema.Struct({ id: Schema.Int, amount: Schema.Int })
const Rows = Channel.make("rows", { payload: Row })

class InsertFailed extends Data.TaggedError("InsertFailed")<{ readonly message: string }> {}

/** A table that takes a batch as a whole, and does not say which row it refuses. */
const table = new Map<number, number>()
const insertAll = Effect.fnUntraced(function*(rows: ReadonlyArray<typeof Row.Type>) {
  yield* Console.log(`insert ${rows.map(({ id }) => id).join(" ")}`)
  if (rows.some(({ id }) => id === 3)) return yield* new InsertFailed({ message: "constraint violated" })
  for (const { amount, id } of rows) table.set(id, amount)
})

const program = Effect.gen(function*() {
  const done = yield* Latch.make()
  yield* Subscription.batch(Rows, {
    group: "warehouse",
    size: 8,
    within: "100 millis",
    maxRetries: 3,
    retryDelay: "5 millis",
    handler: Effect.fnUntraced(function*(messages) {
      // The handler knows that these are bad: the others are not held up.
      const bad = messages.filter(({ payload }) => payload.amount < 0)
      const good = messages.filter(({ payload }) => payload.amount >= 0)
      yield* insertAll(good.map(({ payload }) => payload))
      return new Map<Message.Message<typeof Rows>, Batch.Outcome>(
        bad.map((message) => [message, Batch.term("a negative amount")])
      )
    })
  })
  yield* DeadLetters.subscribe(Rows, {
    name: "office",
    handler: ({ failure, raw }) =>
      Effect.andThen(
        Console.log(`given up: ${raw}: ${failure.message}`),
        failure.reason === "term" ? done.open : Effect.void
      )
  })
  yield* Publisher.publishAll(Rows, [1, 2, 3, 4, 5, 6, 7, 8].map((id) => ({ id, amount: 10 })))
  while (table.size < 7) yield* Effect.sleep("5 millis")
  yield* Publisher.publishAll(Rows, [{ id: 9, amount: -1 }, { id: 10, amount: 10 }])
  yield* done.await
  while (!table.has(10)) yield* Effect.sleep("5 millis")
  yield* Console.log(`stored ${[...table.keys()].toSorted((a, b) => a - b).join(" ")}`)
})

program.pipe(Effect.scoped, Effect.provide(backend()), NodeRuntime.runMain)
