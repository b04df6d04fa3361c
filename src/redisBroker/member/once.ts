/**
 * Once by key: how a delivery begins by its key, and how it ends with it.
 *
 * The mark of a key records in Redis that one delivery has begun it, or that it is done.
 */
import { Effect } from "effect"
import type { Begun, BrokerError, Delivery, Member } from "../../Broker.ts"
import type { RedisError } from "../../Redis.ts"
import { markOf } from "../../broker/keyText.ts"
import { uniqueNames } from "../../internal/uniqueName.ts"
import { chunked } from "../batches.ts"
import { ackOnce } from "../scripts/member/ackOnce.ts"
import { beginOnce } from "../scripts/member/beginOnce.ts"
import type { MemberContext } from "./context.ts"
import type { Gate, HandedOver } from "./gate.ts"
import type { GroupStream } from "./lease.ts"
import { isHeld, Lease, settling } from "./lease.ts"

/** A mark lasts for this part of its lease, so that the member which claims an expired delivery can begin it. */
const markPart = 0.9

/** Deliveries in one script call. */
const deliveriesPerCall = 500

export const make = ({ connection, fail, keys, membership, monotonic }: MemberContext, gate: Gate) => {
  const { consumer, group, leaseMillis } = membership
  /** The leases held here that have begun a key, by mark. */
  const begun = new Map<string, Lease>()
  const onceKeys = [keys.once(group), keys.olderonce(group)]
  const doneMillis = Math.ceil(Math.max(membership.doneMillis ?? 0, leaseMillis))
  const nextToken = uniqueNames()

  /** Sets or renews the marks of leases: in each call leases of one token, and a bounded number of them. */
  const mark = Effect.fnUntraced(function*(leases: ReadonlyArray<Lease>): Effect.fn.Return<
    ReadonlyArray<readonly [lease: Lease, answer: number]>,
    RedisError
  > {
    const out: Array<readonly [Lease, number]> = []
    const byToken = new Map<string, Array<Lease>>()
    for (const lease of leases) {
      const same = byToken.get(lease.token)
      if (same === undefined) byToken.set(lease.token, [lease])
      else same.push(lease)
    }
    for (const [token, all] of byToken) {
      for (const chunk of chunked(all, deliveriesPerCall)) {
        const reply = (yield* connection.evaluate(
          beginOnce,
          onceKeys,
          [Math.ceil(leaseMillis * markPart), doneMillis, token, ...chunk.map((lease) => lease.mark)]
        )) as ReadonlyArray<number>
        for (let i = 0; i < chunk.length; i++) out.push([chunk[i]!, reply[i]!])
      }
    }
    return out
  })

  const begin: Member["begin"] = Effect.fnUntraced(function*(items) {
    const found = new Map<Delivery, Begun>()
    const leases: Array<Lease> = []
    const token = nextToken()
    for (const { delivery, key } of items) {
      // A delivery that is not held any more belongs to another member.
      if (!(delivery instanceof Lease) || !isHeld(delivery)) continue
      const name = markOf(delivery.channel, key)
      // A mark is of one delivery: two deliveries with one key never begin together.
      if (begun.has(name) && begun.get(name) !== delivery) continue
      if (delivery.mark === "") {
        delivery.mark = name
        delivery.token = token
        begun.set(name, delivery)
      }
      leases.push(delivery)
    }
    for (const [lease, answer] of yield* Effect.mapError(mark(leases), fail("begin"))) {
      found.set(lease, answer === 1 ? "mine" : answer === 0 ? "done" : "busy")
      if (answer === 1) continue
      lease.isDuplicate = answer === 0
      // From here on it ends like a delivery without a key.
      begun.delete(lease.mark)
      lease.mark = ""
    }
    return items.map(({ delivery }): Begun => found.get(delivery) ?? "busy")
  })

  /** Acknowledges leases of one stream that have begun by key; returns the refused ones. `freed` gets what is handed over and not taken. */
  const ack = Effect.fnUntraced(function*(
    stream: GroupStream,
    leases: ReadonlyArray<Lease>,
    freed: Array<Lease>
  ): Effect.fn.Return<ReadonlyArray<Lease>, BrokerError> {
    const refused: Array<Lease> = []
    for (const chunk of chunked(leases, deliveriesPerCall)) {
      const isOrdered = gate.counts(chunk)
      const args: Array<string | number> = [
        group,
        stream.channel,
        stream.isRetry ? 1 : 0,
        doneMillis,
        consumer,
        isOrdered ? 1 : 0
      ]
      for (const lease of chunk) {
        args.push(
          lease.position,
          lease.mark,
          lease.token,
          lease.isVanished ? -1 : lease.count - 1,
          lease.orderingKey ?? ""
        )
      }
      const from = monotonic()
      const answer = yield* connection.evaluate(
        ackOnce,
        [
          stream.key,
          ...onceKeys,
          keys.counts,
          ...(chunk.some((lease) => lease.isSuspect) ? [keys.trials(group, stream.channel)] : []),
          ...(isOrdered ? [keys.taken(group), ...gate.keysOf(stream.channel)] : [])
        ],
        args
      ).pipe(
        settling(chunk),
        gate.orLost,
        Effect.mapError(fail("ack"))
      )
      const [reply, messages, vanished] = isOrdered
        ? answer as readonly [ReadonlyArray<number>, HandedOver, number]
        : [answer as ReadonlyArray<number>, [], 0] as const
      for (let i = 0; i < chunk.length; i++) {
        const lease = chunk[i]!
        if (reply[i] === 0 || (reply[i] === 2 && !lease.uncertain)) refused.push(lease)
        // Done, and reported when the whole call is done. If the rest of it fails, this settlement is sent once more.
        else lease.uncertain = true
      }
      freed.push(...yield* gate.handOver(stream.channel, messages, vanished, from))
    }
    return refused
  })

  /** Forgets the mark of a lease that is not held any more. */
  const forget = (lease: Lease): void => {
    if (lease.mark !== "" && begun.get(lease.mark) === lease) begun.delete(lease.mark)
  }

  /** Renews the marks of these leases; returns those whose key is done, or belongs to another delivery by now. */
  const renew = (leases: ReadonlyArray<Lease>): Effect.Effect<ReadonlyArray<Lease>, RedisError> => {
    const marked = leases.filter((lease) => lease.mark !== "")
    return marked.length === 0
      ? Effect.succeed([])
      : Effect.map(
        mark(marked),
        (answers) => answers.filter(([, answer]) => answer !== 1).map(([lease]) => lease)
      )
  }

  return { begin, ack, forget, renew, keys: onceKeys, doneMillis }
}

export type Once = ReturnType<typeof make>
