/** Trials: the record that a member makes when it begins to handle a delivery taken over from a lost consumer. */
import { Effect } from "effect"
import type { Delivery, Member } from "../../Broker.ts"
import { chunked } from "../batches.ts"
import { endTrial } from "../scripts/member/endTrial.ts"
import { beginTrial } from "../scripts/member/beginTrial.ts"
import type { MemberContext } from "./context.ts"
import { heldByStream, Lease, surelyHeld, trialField, trialKind } from "./lease.ts"

/** Deliveries in one script call. */
const deliveriesPerCall = 200

export const make = ({ connection, fail, keys, membership, monotonic }: MemberContext): Pick<
  Member,
  "beginTrial" | "endTrial"
> => {
  const { consumer, group, leaseMillis } = membership

  const tryAll = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    for (const [stream, leases] of heldByStream(deliveries, refused)) {
      for (const chunk of chunked(leases, deliveriesPerCall)) {
        const from = monotonic()
        const reply = (yield* connection.evaluate(
          beginTrial,
          [stream.key, keys.trials(group, stream.channel)],
          [group, consumer, trialKind(stream), ...chunk.flatMap(({ count, position }) => [position, count])]
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
            stream.held.delete(lease.position)
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
    beginTrial: (deliveries) => Effect.mapError(tryAll(deliveries), fail("beginTrial")),
    endTrial: (deliveries) =>
      Effect.forEach(
        deliveries.filter((delivery) => delivery instanceof Lease),
        ({ channel, count, position, stream }) =>
          connection.evaluate(
            endTrial,
            [keys.trials(group, channel)],
            [trialField(stream, position), count]
          ),
        { discard: true }
      ).pipe(Effect.mapError(fail("endTrial")))
  }
}
