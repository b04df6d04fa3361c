/** A `SqlClient` on the SQLite that comes with Node: one connection, one transaction at a time. Use the client of your database. */
import { Effect, Layer, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, SqlError, Statement } from "effect/sql"
import { DatabaseSync, type SQLInputValue } from "node:sqlite"

export const layer = (file: string): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(
    SqlClient.SqlClient,
    Effect.gen(function*() {
      const database = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(file)),
        (database) => Effect.sync(() => database.close())
      )
      const run = <A>(body: () => A) =>
        Effect.try({
          try: body,
          catch: (cause) =>
            new SqlError.SqlError({ reason: new SqlError.UnknownError({ cause, message: String(cause) }) })
        })
      const rows = (sql: string, params: ReadonlyArray<unknown>) =>
        run(() => database.prepare(sql).all(...params as ReadonlyArray<SQLInputValue>))
      const values = (sql: string, params: ReadonlyArray<unknown>) =>
        Effect.map(rows(sql, params), (found) => found.map((row) => Object.values(row)))
      const connection: SqlConnection.Connection = {
        execute: (sql, params) => rows(sql, params),
        executeRaw: rows,
        executeValues: values,
        executeValuesUnprepared: values,
        executeUnprepared: (sql, params) => rows(sql, params),
        executeStream: (sql, params) => Stream.fromIterableEffect(rows(sql, params))
      }
      const turn = yield* Semaphore.make(1)
      return yield* SqlClient.make({
        driver: "sqlite",
        compiler: Statement.makeCompilerSqlite(),
        acquirer: Effect.succeed(connection),
        // Held until the scope of the transaction ends.
        transactionAcquirer: Effect.as(Effect.acquireRelease(turn.take(1), () => turn.release(1)), connection),
        spanAttributes: []
      })
    })
  ).pipe(Layer.provide(Reactivity.layer))
