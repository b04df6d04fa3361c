/** What is noted of deliveries that were taken over from lost consumers, when their handlers begin. */
import { Effect } from "effect"
import type { BrokerError, Delivery, Member, Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import { chunked } from "../batches.ts"
import type { Keys } from "../keys.ts"
import { acquit as acquitScript } from "../scripts/member/acquit.ts"
import { tryAgain as tryScript } from "../scripts/member/tryAgain.ts"
import type { Source } from "./lease.ts"
import { fieldOf, kindOf, Lease, surelyHeld } from "./lease.ts"

/** Deliveries in one script call. */
const deliveriesPerCall = 200

export const make = ({ connection, fail, keys, membership, monotonic }: {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly monotonic: () => number
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}): Pick<Member, "tryAgain" | "acquit"> => {
  const { consumer, group, leaseMillis } = membership

  const tryAll = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    const bySource = new Map<Source, Array<Lease>>()
    for (const delivery of deliveries) {
      if (!(delivery instanceof Lease) || delivery.source.held.get(delivery.position) !== delivery) {
        refused.push(delivery)
        continue
      }
      const same = bySource.get(delivery.source)
      if (same === undefined) bySource.set(delivery.source, [delivery])
      else same.push(delivery)
    }
    for (const [source, leases] of bySource) {
      for (const chunk of chunked(leases, deliveriesPerCall)) {
        const from = monotonic()
        const reply = (yield* connection.evaluate(
          tryScript,
          [source.key, keys.trials(group, source.channel)],
          [group, consumer, kindOf(source), ...chunk.flatMap(({ count, position }) => [position, count])],
          { idempotent: true }
        ).pipe(
          // The group is gone, and with it every delivery of it.
          Effect.catchIf(
            (error) => error.reason === "NoGroup",
            () => Effect.succeed(chunk.map(({ position }) => position))
          )
        )) as ReadonlyArray<string>
        const positions = new Set(reply)
        for (const lease of chunk) {
          if (positions.has(lease.position)) {
            source.held.delete(lease.position)
            refused.push(lease)
          } else {
            lease.heldUntil = from + leaseMillis * surelyHeld
          }
        }
      }
    }
    return refused
  })

  return {
    tryAgain: (deliveries) => Effect.mapError(tryAll(deliveries), fail("tryAgain")),
    acquit: (deliveries) =>
      Effect.forEach(
        deliveries.filter((delivery) => delivery instanceof Lease),
        ({ channel, count, position, source }) =>
          connection.evaluate(
            acquitScript,
            [keys.trials(group, channel)],
            [fieldOf(source, position), count],
            { idempotent: true }
          ),
        { discard: true }
      ).pipe(Effect.mapError(fail("acquit")))
  }
}
