/** Settlements: they are sent in batches, and again after a failure. A caller that waits for one gets its outcome. */
import type { Clock } from "effect"
import { Effect } from "effect"
import type { BrokerError, Burial, Commit, CommitRefused, Committed, Delivery, Failure, Redelivery } from "../Broker.ts"
import type { Reporter } from "../internal/reports.ts"
import type { Settlement } from "../internal/settlement.ts"
import type { Committing, Counts, HeldDelivery, Pending, Settled, ShardConsumer } from "./heldDelivery.ts"
import { enqueue, giveBack, handledWith } from "./heldDelivery.ts"

export const make = ({ buried, clock, counts, drop, handedOver, isMoreComing, lose, reporter, timed }: {
  /** Takes note of a dead letter. */
  readonly buried: ((delivery: Delivery, failure: Failure) => void) | undefined
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly drop: (held: HeldDelivery, outcome: Settled) => void
  /** Takes the deliveries that a settlement of this shard, sent at `askedAt`, has handed over. */
  readonly handedOver: (shard: ShardConsumer, askedAt: bigint, deliveries: ReadonlyArray<Delivery>) => void
  readonly lose: (held: HeldDelivery) => void
  readonly reporter: Pick<Reporter, "settled">
  /** Notes how long the handler of a delivery took. */
  readonly timed: (held: HeldDelivery) => void
  /** Whether more settlements may come a moment later. */
  readonly isMoreComing: () => boolean
}) => {
  const concluded = ({ held: all, resume }: Committing, outcome: Committed) => {
    const left = all.filter(({ phase }) => phase !== "gone")
    if (left.length === 0) return
    if (outcome === "done") {
      counts.processed += left.length
      counts.lastMessageAtMillis = counts.lastSettledAtMillis = clock.currentTimeMillisUnsafe()
      for (const held of left) drop(held, "done")
    } else if (outcome === "lost" && all.length === 1) {
      lose(all[0]!)
    } else if (handledWith(all[0]!).isOver) {
      // Its handler was interrupted while it waited for the commit: nothing is left that could decide about the refusal.
      for (const held of left) giveBack(held)
    } else {
      for (const held of left) held.phase = "running"
    }
    resume(outcome)
  }

  /** Settles a delivery by hand. The first settlement counts; a second one waits for it. */
  const settle = (held: HeldDelivery, settlement: Settlement): Effect.Effect<Settled> =>
    Effect.callback((resume) => {
      if (held.outcome !== undefined) return resume(Effect.succeed(held.outcome))
      const waiter = (outcome: Settled) => resume(Effect.succeed(outcome))
      if (held.waiters === undefined) held.waiters = [waiter]
      else held.waiters.push(waiter)
      if (held.phase === "open") timed(held)
      if (held.phase !== "settling") enqueue(held, settlement)
    })

  /** Acknowledges deliveries of one shard together with messages and writes. If they are refused, the deliveries are as they were before. */
  const commit = (
    held: ReadonlyArray<HeldDelivery>,
    changes: Pick<Commit, "messages" | "writes">
  ): Effect.Effect<Settled | CommitRefused> =>
    Effect.callback((resume) => {
      const [first, ...others] = held
      if (first === undefined || held.some(({ phase }) => phase !== "running")) {
        return resume(Effect.succeed(first?.outcome ?? "lost"))
      }
      for (const one of held) one.phase = "settling"
      first.shard.commits.push({
        held,
        commit: { delivery: first.delivery, others: others.map(({ delivery }) => delivery), ...changes },
        resume: (outcome) => resume(Effect.succeed(outcome))
      })
      first.shard.settlements.openUnsafe()
    })

  /**
   * Sends settlements, and takes what they hand over: also when they fail, because a part of them may have been stored. That comes before the
   * end of the settled deliveries: a consumer that ends must find it.
   */
  const sending = Effect.fnUntraced(function*<A>(shard: ShardConsumer, effect: Effect.Effect<A, BrokerError>) {
    const askedAt = clock.monotonicTimeNanosUnsafe()
    const result = yield* Effect.result(effect)
    const next = shard.member.takeNext()
    if (next.length > 0) handedOver(shard, askedAt, next)
    return result
  })

  /** Waits for settlements, and sends all of them. One fiber for each shard runs it again and again. */
  const send = Effect.fnUntraced(function*(shard: ShardConsumer) {
    yield* shard.settlements.await
    shard.settlements.closeUnsafe()
    // Handlers that end in this turn of the event loop share the batch.
    if (isMoreComing()) yield* Effect.yieldNow
    const batch = shard.outbox
    shard.outbox = []
    const acks: Array<Pending> = []
    const drops: Array<Pending> = []
    const redeliveries: Array<Pending> = []
    const burials: Array<Pending> = []
    for (const item of batch) {
      // Its lease was lost while the settlement waited.
      if (item.held.phase === "gone") continue
      if (item.settlement._tag === "Ack") acks.push(item)
      else if (item.settlement._tag === "Drop") drops.push(item)
      else if (item.settlement._tag === "Redeliver") redeliveries.push(item)
      else burials.push(item)
    }
    let failure: BrokerError | undefined
    const sendAll = Effect.fnUntraced(function*(
      items: ReadonlyArray<Pending>,
      effect: () => Effect.Effect<ReadonlyArray<Delivery>, BrokerError>
    ) {
      if (items.length === 0) return
      const result = yield* sending(shard, effect())
      if (result._tag === "Failure") {
        // It is sent again. The fence makes a second time harmless.
        failure = result.failure
        shard.outbox.push(...items)
        return
      }
      const lost = new Set(result.success)
      counts.lastSettledAtMillis = clock.currentTimeMillisUnsafe()
      for (const { held, settlement } of items) {
        if (held.phase === "gone") continue
        if (lost.has(held.delivery)) {
          lose(held)
          continue
        }
        if (settlement._tag === "Ack") {
          if (settlement.isDuplicate === true) counts.duplicates++
          else {
            counts.processed++
            counts.lastMessageAtMillis = counts.lastSettledAtMillis
          }
        } else if (settlement._tag === "Bury") {
          counts.dead++
          buried?.(held.delivery, settlement.failure)
        } else if (settlement._tag === "Redeliver" && settlement.isRetry) counts.retried++
        if (settlement._tag !== "Ack") reporter.settled(held.delivery, settlement)
        drop(held, "done")
      }
    })
    yield* sendAll(acks, () => shard.member.ack(acks.map((item) => item.held.delivery)))
    yield* sendAll(drops, () => shard.member.drop(drops.map((item) => item.held.delivery)))
    yield* sendAll(redeliveries, () =>
      shard.member.redeliver(redeliveries.map(({ held, settlement }): Redelivery => {
        const { attempt, delayMillis } = settlement as Extract<Settlement, { readonly _tag: "Redeliver" }>
        return { delivery: held.delivery, delayMillis, attempt }
      })))
    yield* sendAll(burials, () =>
      shard.member.bury(burials.map(({ held, settlement }): Burial => ({
        delivery: held.delivery,
        failure: (settlement as Extract<Settlement, { readonly _tag: "Bury" }>).failure
      }))))
    const commits: Array<Committing> = []
    for (const committing of shard.commits) {
      // A lease was lost while the commit waited: it cannot be applied any more.
      if (committing.held.every(({ phase }) => phase !== "gone")) commits.push(committing)
      else concluded(committing, "lost")
    }
    shard.commits = []
    if (commits.length > 0) {
      const result = yield* sending(shard, shard.member.commit(commits.map(({ commit }) => commit)))
      if (result._tag === "Failure") {
        failure = result.failure
        shard.commits.push(...commits)
      } else {
        for (const [i, committing] of commits.entries()) concluded(committing, result.success[i]!)
      }
    }
    if (shard.outbox.length > 0 || shard.commits.length > 0) shard.settlements.openUnsafe()
    if (failure !== undefined) return yield* Effect.fail(failure)
  })

  return { settle, commit, send }
}
