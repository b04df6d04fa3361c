/**
 * The plain way to acknowledge, for deliveries that are surely held and were not taken over from a lost consumer: XACK, and the count of the group with it, so that the two are
 * done together or not at all. What it asks for and gets no answer to is settled by the fenced script afterwards, which counts only what it
 * acknowledges.
 */
import { Effect } from "effect"
import type { Command, Connection } from "../../Redis.ts"
import { RedisError } from "../../Redis.ts"
import { messageOf } from "../../redis/protocol.ts"
import type { Keys } from "../keys.ts"
import { ack as ackScript } from "../scripts/member/ack.ts"
import type { Lease, Source } from "./lease.ts"

/** A batch of fewer deliveries is acknowledged by a script: one command costs Node less than four. */
const smallBatch = 8

/** Positions acknowledged in one XACK: Lua's stack bounds it. */
export const positionsPerAck = 5_000

export type Batch = ReadonlyArray<readonly [source: Source, leases: ReadonlyArray<Lease>]>

export const make = ({ connection, group, keys, monotonic, onSettled }: {
  readonly connection: Connection
  readonly keys: Keys
  readonly group: string
  readonly monotonic: () => number
  /** Something was settled in this stream. */
  readonly onSettled: (stream: string) => void
}) => {
  const duplicatesOf = (leases: ReadonlyArray<Lease>) => {
    let duplicates = 0
    for (const lease of leases) if (lease.isDuplicate) duplicates++
    return duplicates
  }

  /** Judged as late as can be: it may have waited for a connection, or the process may have been frozen. */
  const isHeld = (batch: Batch) => () => {
    const now = monotonic()
    return batch.every(([, leases]) => leases.every((lease) => now < lease.heldUntil))
  }

  const unsure = (batch: Batch) => {
    for (const [source, leases] of batch) {
      for (const lease of leases) lease.uncertain = true
      onSettled(source.key)
    }
  }

  /** Acknowledges and counts in a script: of small batches, and where a transaction was refused. */
  const ackByScript = Effect.fnUntraced(function*(batch: Batch): Effect.fn.Return<void, RedisError> {
    const args: Array<string | number> = [group]
    for (const [source, leases] of batch) {
      args.push(source.channel, duplicatesOf(leases), source.isRetry ? 1 : 0, leases.length)
      for (const lease of leases) args.push(lease.position)
    }
    const replies = (yield* connection.evaluate(
      ackScript,
      [keys.counts, ...batch.map(([source]) => source.key)],
      args,
      { idempotent: false, isCurrent: isHeld(batch) }
    ).pipe(Effect.tapError((error) =>
      Effect.sync(() => {
        if (error.reason === "ConnectionLost") unsure(batch)
      })
    ))) as ReadonlyArray<number | string>
    unsure(batch.filter((_, i) => typeof replies[i] !== "string"))
    // A stream that refuses holds up no other.
    for (const reply of replies) {
      if (typeof reply === "string") {
        return yield* new RedisError({ reason: "Refused", command: "ack", message: messageOf(reply) })
      }
    }
  })

  /**
   * Acknowledges and counts what is surely held. A large batch is a transaction, which costs Redis a tenth of what the script does;
   * it is refused as a whole, by a server without memory too, and then the script does it.
   */
  return Effect.fnUntraced(function*(batch: Batch): Effect.fn.Return<void, RedisError> {
    if (batch.reduce((sum, [, leases]) => sum + leases.length, 0) < smallBatch) return yield* ackByScript(batch)
    const commands: Array<Command> = [["multi"]]
    const acks: Array<number> = []
    for (const [source, leases] of batch) {
      const account = `${group}\n${source.channel}`
      const duplicates = duplicatesOf(leases)
      acks.push(commands.length - 1)
      commands.push(
        ["xack", source.key, group, ...leases.map((lease) => lease.position)],
        ["hincrby", keys.counts, `a\n${account}`, leases.length]
      )
      if (source.isRetry) commands.push(["hincrby", keys.counts, `z\n${account}`, leases.length])
      if (duplicates > 0) commands.push(["hincrby", keys.counts, `u\n${account}`, duplicates])
    }
    commands.push(["exec"])
    const replies = yield* connection.pipeline(commands, { isCurrent: isHeld(batch) }).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason === "ConnectionLost") unsure(batch)
        })
      )
    )
    const done = replies.at(-1)
    if (!Array.isArray(done)) {
      if (done instanceof RedisError && done.reason === "ConnectionLost") {
        unsure(batch)
        return yield* done
      }
      return yield* ackByScript(batch)
    }
    // What the group did not have any more, because it was removed meanwhile, was counted and must not be.
    const excess = batch.flatMap(([source, leases], i): ReadonlyArray<Command> => {
      const acked = (done as ReadonlyArray<unknown>)[acks[i]!]
      const missing = leases.length - (typeof acked === "number" ? acked : 0)
      if (missing === 0) return []
      const kinds = source.isRetry ? ["a", "z"] : ["a"]
      return kinds.map((kind) => ["hincrby", keys.counts, `${kind}\n${group}\n${source.channel}`, -missing])
    })
    unsure(batch)
    if (excess.length > 0) yield* connection.pipeline(excess)
  })
}
