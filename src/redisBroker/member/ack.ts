/**
 * Plain acknowledgement, for deliveries that are surely held and were not taken over from a lost consumer.
 *
 * XACK and the totals of the group are applied together or not at all. A call whose answer was lost leaves its leases uncertain: the
 * fenced script settles them afterwards, and counts only what it acknowledges itself.
 */
import { Effect } from "effect"
import type { Command } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import { messageOf, refusedCommand } from "../../redis/protocol.ts"
import { counterField } from "../counters.ts"
import { ack as ackScript } from "../scripts/member/ack.ts"
import type { MemberContext } from "./context.ts"
import type { GroupStream, Lease } from "./lease.ts"

/** Batches smaller than this are acknowledged by a script: one command costs Node less than four. */
const smallBatch = 8

/** Positions in one XACK: Lua's stack bounds it. */
export const positionsPerAck = 5_000

export type Batch = ReadonlyArray<readonly [stream: GroupStream, leases: ReadonlyArray<Lease>]>

export const make = (
  { connection, keys, membership: { group }, monotonic }: MemberContext,
  onSettled: (stream: string) => void
) => {
  const duplicatesOf = (leases: ReadonlyArray<Lease>) => {
    let duplicates = 0
    for (const lease of leases) if (lease.isDuplicate) duplicates++
    return duplicates
  }

  /** Asked just before the call is sent: it may have waited for a connection, or the process may have been frozen. */
  const isHeld = (batch: Batch) => () => {
    const now = monotonic()
    return batch.every(([, leases]) => leases.every((lease) => now < lease.heldUntil))
  }

  const markSent = (batch: Batch) => {
    for (const [stream, leases] of batch) {
      for (const lease of leases) lease.uncertain = true
      onSettled(stream.key)
    }
  }

  const orMarkSent = <A>(batch: Batch, effect: Effect.Effect<A, RedisError>) =>
    Effect.tapError(effect, ({ reason }) =>
      Effect.sync(() => {
        if (reason === "ConnectionLost") markSent(batch)
      }))

  /** Acknowledges and counts in a script: for small batches, and where a transaction was refused. */
  const ackByScript = Effect.fnUntraced(function*(batch: Batch): Effect.fn.Return<void, RedisError> {
    const args: Array<string | number> = [group]
    for (const [stream, leases] of batch) {
      args.push(stream.channel, duplicatesOf(leases), stream.isRetry ? 1 : 0, leases.length)
      for (const lease of leases) args.push(lease.position)
    }
    const replies = (yield* orMarkSent(
      batch,
      connection.evaluate(
        ackScript,
        [keys.counts, ...batch.map(([stream]) => stream.key)],
        args,
        { isCurrent: isHeld(batch) }
      )
    )) as ReadonlyArray<number | string>
    markSent(batch.filter((_, i) => typeof replies[i] !== "string"))
    // A stream that refuses does not hold up the others.
    for (const reply of replies) {
      if (typeof reply === "string") {
        return yield* refusedCommand("ack", messageOf(reply))
      }
    }
  })

  /**
   * Acknowledges and counts deliveries that are surely held. A large batch is a transaction, which costs Redis a tenth of the script.
   * A transaction is refused as a whole, also by a server without memory; then the script does it.
   */
  return Effect.fnUntraced(function*(batch: Batch): Effect.fn.Return<void, RedisError> {
    if (batch.reduce((sum, [, leases]) => sum + leases.length, 0) < smallBatch) return yield* ackByScript(batch)
    const commands: Array<Command> = [["multi"]]
    const acks: Array<number> = []
    for (const [stream, leases] of batch) {
      const duplicates = duplicatesOf(leases)
      acks.push(commands.length - 1)
      commands.push(
        ["xack", stream.key, group, ...leases.map((lease) => lease.position)],
        ["hincrby", keys.counts, counterField("acked", group, stream.channel), leases.length]
      )
      if (stream.isRetry) {
        commands.push(["hincrby", keys.counts, counterField("settledRetries", group, stream.channel), leases.length])
      }
      if (duplicates > 0) {
        commands.push(["hincrby", keys.counts, counterField("duplicates", group, stream.channel), duplicates])
      }
    }
    commands.push(["exec"])
    const replies = yield* orMarkSent(batch, connection.pipeline(commands, { isCurrent: isHeld(batch) }))
    const done = replies.at(-1)
    if (!Array.isArray(done)) {
      if (done instanceof RedisError && done.reason === "ConnectionLost") {
        markSent(batch)
        return yield* done
      }
      return yield* ackByScript(batch)
    }
    // Positions that the group did not have any more, because it was removed meanwhile, were counted and must not be.
    const excess = batch.flatMap(([stream, leases], i): ReadonlyArray<Command> => {
      const acked = (done as ReadonlyArray<unknown>)[acks[i]!]
      const missing = leases.length - (typeof acked === "number" ? acked : 0)
      if (missing === 0) return []
      const totals = stream.isRetry ? ["acked", "settledRetries"] as const : ["acked"] as const
      return totals.map((total) => ["hincrby", keys.counts, counterField(total, group, stream.channel), -missing])
    })
    markSent(batch)
    if (excess.length > 0) yield* connection.pipeline(excess)
  })
}
