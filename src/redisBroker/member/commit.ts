/**
 * A member's commits: a transaction is applied together with the end of its delivery.
 *
 * A script reaches one slot. Messages for a channel of another shard go into the outbox of this shard with everything else, and are relayed from
 * there; see `outbox.ts`.
 */
import { Effect } from "effect"
import type { Commit, Committed } from "../../Broker.ts"
import type { RedisError } from "../../Redis.ts"
import type { Channels } from "../channels.ts"
import type { Keys } from "../keys.ts"
import type { Shards } from "../shards.ts"
import { builder, isRefusal, refusalOf, run } from "../transactionScript.ts"
import { fieldOf, Lease } from "./lease.ts"
import type { RedisMarks } from "./once.ts"

export interface Setup {
  readonly shards: Shards
  readonly channels: Channels
  readonly keys: Keys
  readonly group: string
  readonly marks: RedisMarks
  /** Called with each stream in which a delivery was settled. */
  readonly onSettled: (stream: string) => void
}

/** Applies a transaction together with the end of its delivery. */
const commitOne = Effect.fnUntraced(function*(
  { channels, group, keys, marks, onSettled, shards }: Setup,
  { delivery, messages, writes }: Commit
): Effect.fn.Return<Committed, RedisError> {
  if (!(delivery instanceof Lease)) return "lost"
  const lease = delivery
  if (lease.source.held.get(lease.position) !== lease || lease.mark === "") return "lost"
  const reply = yield* run(
    channels,
    shards.connectionOf(keys.shard),
    messages,
    Effect.fnUntraced(function*() {
      const script = builder(
        [lease.source.key, keys.once(group), keys.olderOnce(group), keys.counts],
        [
          "ack",
          group,
          lease.position,
          lease.mark,
          lease.token,
          lease.channel,
          lease.isVanished ? -1 : lease.count - 1,
          lease.source.isRetry ? 1 : 0,
          marks.doneMillis
        ],
        keys.events
      )
      if (lease.isSuspect) script.tried(keys.trials(group, lease.channel), fieldOf(lease.source, lease.position))
      for (const message of messages) {
        if (shards.shardOf(message.channel) !== keys.shard) {
          channels.announce(message)
          script.outbox(keys, message)
        } else script.publish(keys, (yield* channels.target(message, false)).log, message)
      }
      for (const write of writes) script.write(write)
      return script
    }),
    false
  ).pipe(Effect.tapError((error) =>
    Effect.sync(() => {
      if (error.reason === "ConnectionLost") lease.uncertain = true
    })
  ))
  const outcome = reply[0]
  if (isRefusal(reply)) return refusalOf(reply)
  if (outcome !== "done" && !(outcome === "already" && lease.uncertain)) return "lost"
  // The member learns of it when all commits have ended: if one fails, this one is sent once more.
  lease.uncertain = true
  onSettled(lease.source.key)
  return "done"
})

/** Applies each commit by itself, and to its end: one that was interrupted would not be known to be uncertain. */
export const commit = Effect.fnUntraced(function*(setup: Setup, commits: ReadonlyArray<Commit>) {
  const results = yield* Effect.forEach(commits, (one) => Effect.result(commitOne(setup, one)), {
    concurrency: "unbounded"
  })
  const outcomes = yield* Effect.forEach(results, Effect.fromResult)
  for (const [i, { delivery }] of commits.entries()) {
    if (!(delivery instanceof Lease) || typeof outcomes[i] !== "string") continue
    delivery.source.held.delete(delivery.position)
    setup.marks.leave(delivery)
  }
  return outcomes
})
