/** A namespace as a whole: the recorded number of its shards, and the permissions of the Redis user in it. */
import { Effect } from "effect"
import { BrokerError } from "../broker/error.ts"
import * as Permissions from "../redis/permissions.ts"
import { missingPermissions } from "./scripts/upkeep/missingPermissions.ts"
import type { Shards } from "./shards.ts"

const again = { idempotent: true } as const

export const refuse = (message: string) => new BrokerError({ reason: "Refused", operation: "open", message })

/**
 * Records the number of shards, or fails when another number is recorded.
 *
 * A flush deletes the record. It has to be written again before a client with another number comes.
 */
export const recordShards = (prefix: string, { all, connectionOf, fail, keysOf }: Shards) => {
  const { meta } = keysOf(0)
  const recorded = connectionOf(0).send(["hget", meta, "shards"], again)
  return connectionOf(0).send(["hsetnx", meta, "shards", all.length], again).pipe(
    Effect.matchEffect({
      onSuccess: () => recorded,
      // When memory is full Redis refuses the command even where it would write nothing.
      onFailure: (error) =>
        error.reason === "OutOfMemory"
          ? Effect.flatMap(recorded, (found) => found === null ? Effect.fail(error) : Effect.succeed(found))
          : Effect.fail(error)
    }),
    Effect.mapError(fail("open")),
    Effect.flatMap((found) =>
      found === String(all.length) ? Effect.void : Effect.fail(refuse(
        `the namespace "${prefix}" has ${String(found)} shards and this client is set to ${all.length}: use shards: ${
          String(found)
        }, or another prefix`
      ))
    )
  )
}

/** Fails when the user lacks a permission that is needed, and returns whether it may unblock a read. */
export const checkPermissions = Effect.fnUntraced(function*(prefix: string, { connectionOf, fail, keysOf }: Shards) {
  const refused = (yield* connectionOf(0).evaluate(
    missingPermissions,
    [keysOf(0).meta],
    [...Permissions.needed, ...Permissions.wished]
  ).pipe(Effect.mapError(fail("open")))) as ReadonlyArray<string>
  const lacking = refused.filter((command) => Permissions.needed.includes(command))
  if (lacking.length > 0) return yield* refuse(Permissions.refusal(prefix, lacking))
  yield* Permissions.tell(refused)
  return { mayUnblock: !refused.includes(Permissions.unblock) }
})
