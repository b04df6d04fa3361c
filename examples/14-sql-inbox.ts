/**
 * 14. Exactly once in a SQL database: the row that says "done" is written in the transaction that does it.
 *
 *     node --conditions=rotif-source examples/14-sql-inbox.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Queue, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { Channel, Publisher, Subscription } from "rotif"
import { backend } from "./backend.ts"
import * as Sqlite from "./sqlite.ts"

const Deposit = Channel.make("deposits", { payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }) })

class Crashed extends Data.TaggedError("Crashed")<{ readonly message: string }> {}

/** Runs `effect` and remembers the message, in one transaction; not at all when it is remembered already. */
const inbox = Effect.fnUntraced(function*<A, E, R>(group: string, id: string, effect: Effect.Effect<A, E, R>) {
  const sql = yield* SqlClient.SqlClient
  return yield* sql.withTransaction(Effect.gen(function*() {
    const added =
      yield* sql`insert into inbox (consumer, message) values (${group}, ${id}) on conflict do nothing returning message`
    return added.length === 0 ? false : yield* Effect.as(effect, true)
  }))
})

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table inbox (consumer text, message text, primary key (consumer, message))`
  yield* sql`create table accounts (name text primary key, cents integer)`
  yield* sql`insert into accounts (name, cents) values ('alice', 0)`
  const lines = yield* Queue.unbounded<string>()

  yield* Subscription.make(Deposit, {
    group: "bank",
    retryDelay: "10 millis",
    handler: Effect.fnUntraced(function*({ attempt, group, id, payload }) {
      const isNew = yield* inbox(
        group,
        id,
        sql`update accounts set cents = cents + ${payload.cents} where name = ${payload.account}`
      )
      yield* Queue.offer(lines, `attempt ${attempt}: ${isNew ? "booked" : "was booked before"}`)
      // The database has committed, and the acknowledgement is lost: the message is delivered again.
      if (attempt === 1) return yield* new Crashed({ message: "after the commit" })
    })
  })
  yield* Publisher.publish(Deposit, { account: "alice", cents: 500 })
  for (const line of yield* Queue.takeN(lines, 2)) yield* Console.log(line)
  const [alice] = yield* sql<{ readonly cents: number }>`select cents from accounts where name = 'alice'`
  yield* Console.log(`alice has ${alice?.cents} cents`)
})

program.pipe(
  Effect.scoped,
  Effect.provide([backend(), Sqlite.layer(":memory:")]),
  NodeRuntime.runMain
)
