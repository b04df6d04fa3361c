/** How a member renews its leases, and finds out which of them it has lost. */
import { Effect } from "effect"
import type { Delivery, Member } from "../../Broker.ts"
import { chunked } from "../batches.ts"
import { renew } from "../scripts/member/renew.ts"
import type { MemberContext } from "./context.ts"
import { heldByStream, isHeld, surelyHeld } from "./lease.ts"
import type { Once } from "./once.ts"

/** Deliveries in one script call. */
const deliveriesPerCall = 1_000

export const make = (
  { connection, fail, membership: { consumer, group, leaseMillis }, monotonic }: MemberContext,
  once: Once
): Member["renew"] =>
  Effect.fnUntraced(function*(deliveries) {
    const refused: Array<Delivery> = []
    for (const [stream, leases] of heldByStream(deliveries, refused)) {
      // Some may have ended while other streams were renewed.
      refused.push(...leases.filter((lease) => !isHeld(lease)))
      for (const chunk of chunked(leases.filter(isHeld), deliveriesPerCall)) {
        const from = monotonic()
        const asked = chunk.filter((lease) => !lease.isVanished)
        const [lost, vanished] = asked.length === 0 ? [[], []] : (yield* connection.evaluate(
          renew,
          [stream.key],
          [group, consumer, ...asked.flatMap((lease) => [lease.position, lease.count])]
        ).pipe(
          Effect.catchIf(
            (error) => error.reason === "NoGroup",
            () => Effect.succeed([asked.map((lease) => lease.position), []])
          ),
          Effect.mapError(fail("renew"))
        )) as readonly [ReadonlyArray<string>, ReadonlyArray<string>]
        for (const lease of asked) if (vanished.includes(lease.position)) lease.isVanished = true
        const positions = new Set(lost)
        const kept = chunk.filter((lease) => !positions.has(lease.position) && !lease.uncertain && !lease.isEnding)
        for (const lease of yield* Effect.mapError(once.renew(kept), fail("renew"))) positions.add(lease.position)
        for (const lease of chunk) {
          // Whether it was settled or lost is known when its settlement is repeated.
          if (lease.uncertain) continue
          if (positions.has(lease.position)) {
            stream.held.delete(lease.position)
            once.forget(lease)
            refused.push(lease)
          } else {
            lease.heldUntil = from + leaseMillis * surelyHeld
          }
        }
      }
    }
    return refused
  })
