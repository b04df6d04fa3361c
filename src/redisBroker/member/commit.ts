/**
 * A member's commits: a transaction is applied together with the end of its delivery, or of all deliveries of a batch.
 *
 * A script reaches one slot. Messages for a channel of another shard go into the outbox of this shard with everything else, and are
 * relayed from there; see `outbox.ts`.
 */
import { Effect } from "effect"
import type { Commit, Committed, Member } from "../../Broker.ts"
import type { RedisError } from "../../Redis.ts"
import type { Channels } from "../channels.ts"
import { commit } from "../scripts/member/commit.ts"
import { builder, isRefusal, refusalOf, run } from "../transactionScript.ts"
import type { MemberContext } from "./context.ts"
import type { Gate, HandedOver } from "./gate.ts"
import { isHeld, Lease, trialField } from "./lease.ts"
import type { Once } from "./once.ts"

export const make = (
  { connection, fail, keys, membership: { consumer, group }, monotonic }: MemberContext,
  channels: Channels,
  shardOf: (channel: string) => number,
  once: Once,
  gate: Gate,
  giveBack: (leases: ReadonlyArray<Lease>) => Effect.Effect<void>,
  onSettled: (stream: string) => void
): Member["commit"] => {
  /** How a delivery is acknowledged, for the script. */
  const acknowledgementOf = (lease: Lease) =>
    [
      lease.position,
      lease.mark,
      lease.token,
      lease.channel,
      lease.isVanished ? -1 : lease.count - 1,
      lease.stream.isRetry ? 1 : 0
    ] as const

  const commitOne = Effect.fnUntraced(function*(
    { delivery, messages, others = [], writes }: Commit
  ): Effect.fn.Return<Committed, RedisError> {
    const all = [delivery, ...others]
    const leases = all.filter((one): one is Lease => one instanceof Lease && isHeld(one) && one.mark !== "")
    const [lease, ...further] = leases
    if (lease === undefined || leases.length < all.length) return "lost"
    const from = monotonic()
    const isOrdered = gate.counts([lease])
    const reply = yield* run(
      channels,
      connection,
      messages,
      Effect.fnUntraced(function*() {
        const script = builder(
          [lease.stream.key, keys.once(group), keys.olderonce(group), keys.counts],
          ["ack", group, ...acknowledgementOf(lease), once.doneMillis],
          keys.events
        )
        for (const one of further) script.ack(one.stream.key, acknowledgementOf(one))
        for (const one of leases) {
          if (one.isSuspect) script.tried(keys.trials(group, one.channel), trialField(one.stream, one.position))
        }
        if (isOrdered) {
          const [log, retry, busy, lines, behind] = gate.keysOf(lease.channel)
          script.free(busy, consumer, lease.orderingKey!, [keys.taken(group), log, retry, lines, behind])
        }
        for (const message of messages) {
          if (shardOf(message.channel) !== keys.shard) {
            channels.announce(message)
            script.outbox(keys, message)
          } else script.publish(keys, (yield* channels.target(message, false)).log, message)
        }
        for (const write of writes) script.write(write)
        return script
      }),
      commit
    ).pipe(
      Effect.tapError((error) =>
        Effect.sync(() => {
          if (error.reason === "ConnectionLost") { for (const one of leases) one.uncertain = true }
        })
      ),
      gate.orLost
    )
    const outcome = reply[0]
    if (isRefusal(reply)) return refusalOf(reply)
    if (outcome !== "done" && !(outcome === "already" && lease.uncertain)) return "lost"
    // The member learns of it when all commits have ended: if one fails, this one is sent once more.
    for (const one of leases) {
      one.uncertain = true
      onSettled(one.stream.key)
    }
    if (isOrdered && outcome === "done") {
      // Beside refusals, the script answers an ordered group in this shape.
      const [, messages, vanished] = reply as unknown as readonly [string, HandedOver, number]
      yield* giveBack(yield* gate.handOver(lease.channel, messages, vanished, from))
    }
    return "done"
  })

  return Effect.fnUntraced(function*(commits) {
    // Each is applied by itself, and to its end: one that was interrupted would not be known to be uncertain.
    const results = yield* Effect.forEach(commits, (one) => Effect.result(commitOne(one)), { concurrency: "unbounded" })
    const outcomes = yield* Effect.forEach(results, Effect.fromResult)
    for (const [i, { delivery, others = [] }] of commits.entries()) {
      // Which of several deliveries is lost, their settlements will show.
      if (typeof outcomes[i] !== "string" || (outcomes[i] === "lost" && others.length > 0)) continue
      for (const lease of [delivery, ...others]) {
        if (!(lease instanceof Lease)) continue
        lease.stream.held.delete(lease.position)
        once.forget(lease)
      }
    }
    return outcomes
  }, Effect.mapError(fail("commit")))
}
