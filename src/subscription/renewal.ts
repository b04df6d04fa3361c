/**
 * Renewal: renews the leases of held deliveries, three times in the time of a lease, and reports what it finds: lost leases, messages that a
 * limit has removed, and slow handlers.
 */
import type { Clock } from "effect"
import { Effect } from "effect"
import type { Delivery } from "../Broker.ts"
import type { Reporter } from "../internal/reports.ts"
import type { Counts, HeldDelivery, ShardConsumer } from "./heldDelivery.ts"

export const make = ({ clock, counts, group, isPolled, leaseMillis, lose, pump, reporter, slowMillis }: {
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly group: string
  readonly isPolled: boolean
  readonly leaseMillis: number
  readonly lose: (held: HeldDelivery) => void
  /** Starts deliveries that waited for a renewal. */
  readonly pump: () => void
  readonly reporter: Pick<Reporter, "slow">
  readonly slowMillis: number
}) => {
  const tellSlow = (shard: ShardConsumer) => {
    const at = clock.monotonicTimeNanosUnsafe()
    for (const held of shard.held) {
      if (held.isSlow || held.startedAt === undefined) continue
      const millis = Number(at - held.startedAt) / 1e6
      if (millis <= slowMillis) continue
      held.isSlow = true
      reporter.slow(held.delivery, millis)
    }
  }

  /** Waits until it is time, and renews. One fiber for each shard runs it again and again. */
  return Effect.fnUntraced(function*(shard: ShardConsumer) {
    // A renewal that failed is tried again soon: the leases go on passing.
    if (!isPolled && shard.held.size === 0) {
      shard.occupied.closeUnsafe()
      yield* shard.occupied.await
    }
    if (!shard.isRenewalDue) yield* Effect.timeoutOption(shard.overdue.await, leaseMillis / 3)
    shard.isRenewalDue = true
    tellSlow(shard)
    shard.awakeAt = shard.roundAt
    shard.roundAt = clock.monotonicTimeNanosUnsafe()
    const held = new Map<Delivery, HeldDelivery>()
    for (const one of shard.held) held.set(one.delivery, one)
    const leasedUntil = shard.roundAt + shard.leaseNanos
    const lost = held.size === 0 ? [] : yield* shard.member.renew([...held.keys()])
    shard.isRenewalDue = false
    let vanished = 0
    for (const one of held.values()) {
      one.leasedUntil = leasedUntil
      if (!one.isVanished && one.delivery.isVanished) {
        one.isVanished = true
        vanished++
      }
    }
    for (const delivery of lost) lose(held.get(delivery)!)
    if (vanished > 0) {
      counts.vanished += vanished
      yield* Effect.logWarning(
        `rotif: a limit of their channel removed ${vanished} messages that group "${group}" is handling: they are settled ` +
          `as any other, and lost when this process is`
      )
    }
    shard.overdue.closeUnsafe()
    pump()
  })
}
