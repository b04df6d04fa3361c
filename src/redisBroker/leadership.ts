/** Who of many processes does a duty, for as long as a key with a time to live says so. */
import { Effect } from "effect"
import type { Connection, RedisError } from "../Redis.ts"

/** Takes or keeps the lead; whether `me` has it now. */
export const lead = Effect.fnUntraced(function*(
  connection: Connection,
  key: string,
  me: string,
  leaseMillis: number
): Effect.fn.Return<boolean, RedisError> {
  const millis = Math.ceil(leaseMillis)
  const take = (isNew: boolean) =>
    connection.send(["set", key, me, "PX", millis, ...(isNew ? ["NX"] : []), "GET"], { idempotent: true }).pipe(
      // Another program's: without it nobody would lead.
      Effect.catchIf(
        ({ message }) => message.startsWith("WRONGTYPE "),
        () => Effect.as(connection.send(["del", key], { idempotent: true }), null)
      ),
      // Without memory nobody can take the lead, and what is done by it is needed most: whoever finds nobody leads.
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
