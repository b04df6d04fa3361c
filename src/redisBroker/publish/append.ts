/** Publishing on Redis: one message or a batch, and the waits of those that ask for replicas or disks. */
import { Effect } from "effect"
import type { Appended, NewMessage } from "../../broker/publishing.ts"
import type { DurableConnection, RedisError } from "../../Redis.ts"
import type { Evidence } from "../callOutcome.ts"
import { inLog } from "../callOutcome.ts"
import type { Channels } from "../channels.ts"
import type { Shards } from "../shards.ts"
import * as Batch from "./batch.ts"
import * as Durability from "./durability.ts"
import type { Route } from "./route.ts"
import * as Single from "./single.ts"
import * as Undecided from "./undecided.ts"

/** Reads an answer as that of a stored message: another publish with its id, under the same window, is a duplicate of it. */
const asFirst = ({ id }: NewMessage, evidence: Evidence): Evidence =>
  evidence._tag === "Log" ? evidence : {
    ...evidence,
    read: (value) => {
      const told = evidence.read(value)
      return told?._tag === "Stored" ? { _tag: "Duplicate", id, position: told.position } : told
    }
  }

export const make = (shards: Shards, channels: Channels, { durable, graceMillis }: {
  readonly durable: (shard: number) => DurableConnection
  /** How long a log keeps messages that all groups have acknowledged. */
  readonly graceMillis: number
}) => {
  const undecided = Undecided.make(shards, channels, graceMillis)
  const durability = Durability.make(shards, durable)
  const single = Single.make(shards, channels, undecided)
  const appendAll = Batch.make(shards, channels, undecided, single)
  const shared: Route = { connectionOf: shards.connectionOf }

  const appendBy = (messages: ReadonlyArray<NewMessage>, route: Route): Effect.Effect<ReadonlyArray<Appended>> =>
    messages.length === 1
      ? Effect.map(single.appendOne(messages[0]!, route), (outcome) => [outcome])
      : appendAll(messages, route)

  /** The evidence for a message that is sent plainly. */
  const evidenceFor = (message: NewMessage): Effect.Effect<Evidence, RedisError> => {
    const evidence = undecided.get(message)?.evidence
    return evidence !== undefined
      ? Effect.succeed(evidence)
      : Effect.map(channels.ensure(message), ({ position }) => inLog(position))
  }

  const appendDurably = Effect.fnUntraced(function*(
    messages: ReadonlyArray<NewMessage>
  ): Effect.fn.Return<ReadonlyArray<Appended>> {
    const probed = yield* Effect.result(durability.probeAll(messages))
    // Nothing is stored: nothing could tell whether it is durable.
    if (probed._tag === "Failure") return messages.map(() => ({ _tag: "Failed", error: probed.failure }))
    // The position from which a repetition searches. A channel that cannot be made known cannot take the message either.
    const evidence = yield* Effect.forEach(messages, (message) => Effect.result(evidenceFor(message)))
    const { confirm, route } = durability.begin()
    const outcomes = yield* appendBy(messages, route)
    const shortfalls = yield* confirm(messages, outcomes)
    return outcomes.map((outcome, i) => {
      const message = messages[i]!
      const shortfall = shortfalls[i]
      if (shortfall === undefined) return outcome
      const before = evidence[i]!
      if (before._tag === "Success") {
        undecided.remember(message, asFirst(message, undecided.sentWith(message) ?? before.success))
      }
      return { ...outcome, shortfall }
    })
  })

  return {
    append: (messages: ReadonlyArray<NewMessage>): Effect.Effect<ReadonlyArray<Appended>> => {
      for (let i = 0; i < messages.length; i++) {
        if (messages[i]!.durability !== undefined) return appendDurably(messages)
      }
      return appendBy(messages, shared)
    },
    checkDurability: durability.check
  }
}
