/** Leadership: one of many processes does a duty, for as long as a key with a time to live names it. */
import { Effect } from "effect"
import type { Connection, RedisError } from "../Redis.ts"

/** Takes or keeps the lead, and returns whether `me` has it now. */
export const lead = Effect.fnUntraced(function*(
  connection: Connection,
  key: string,
  me: string,
  leaseMillis: number
): Effect.fn.Return<boolean, RedisError> {
  const millis = Math.ceil(leaseMillis)
  const take = (isNew: boolean) =>
    connection.send(["set", key, me, "PX", millis, ...(isNew ? ["NX"] : []), "GET"], { idempotent: true }).pipe(
      // Another program wrote the key. With it nobody could lead.
      Effect.catchIf(
        ({ message }) => message.startsWith("WRONGTYPE "),
        () => Effect.as(connection.send(["del", key], { idempotent: true }), null)
      ),
      // When memory is full nobody can take the lead, and the duty is needed most: every process that finds no leader leads.
      Effect.catchIf(
        ({ reason }) => reason === "OutOfMemory",
        () => connection.send(["get", key], { idempotent: true })
      )
    )
  const owner = yield* take(true)
  if (owner !== null && owner !== me) return false
  yield* take(false)
  return true
})
