/**
 * How a member ends its leases: acknowledge, drop, give back, bury.
 *
 * Each settlement is fenced by owner and delivery count, but for a plain XACK of whole batches while the leases are surely held. A
 * settlement whose answer was lost is sent again, and counts as done when the second one finds it done.
 */
import { Effect } from "effect"
import type { BrokerError, Delivery, Member } from "../../Broker.ts"
import { chunked, portioned } from "../batches.ts"
import * as Entry from "../entry.ts"
import { waitingMember } from "../keys.ts"
import { leave } from "../scripts/member/leave.ts"
import { settle } from "../scripts/member/settle.ts"
import * as Ack from "./ack.ts"
import type { MemberContext } from "./context.ts"
import type { Gate, HandedOver } from "./gate.ts"
import type { GroupStream, Lease } from "./lease.ts"
import { describe, forget, heldByStream, settling } from "./lease.ts"
import type { Once } from "./once.ts"

/** Deliveries in one script call. */
const deliveriesPerCall = 200

/** The same, of acknowledgements in a stream that orders. */
const deliveriesPerLeave = 1_000

/** The arguments of the script for one delivery: action, value, body. */
type Action = (lease: Lease) => ReadonlyArray<string | number>

export const make = (
  context: MemberContext,
  once: Once,
  gate: Gate,
  onSettled: (stream: string) => void
): Pick<Member, "ack" | "drop" | "redeliver" | "bury"> & {
  /** Gives back messages that were handed over and that this member does not take: they are ready for any member. */
  readonly giveBack: (leases: ReadonlyArray<Lease>) => Effect.Effect<void>
} => {
  const { connection, fail, keys, membership: { consumer, group }, monotonic } = context
  const ackPlainly = Ack.make(context, onSettled)

  /**
   * Sends a settlement to the fenced script; returns the refused leases. `freed` gets what is handed over and not taken. A refused lease that an earlier settlement may have ended
   * counts as done.
   */
  const fenced = Effect.fnUntraced(function*(
    operation: string,
    stream: GroupStream,
    leases: ReadonlyArray<Lease>,
    freed: Array<Lease>,
    actionOf: Action
  ): Effect.fn.Return<ReadonlyArray<Delivery>, BrokerError> {
    const refused: Array<Delivery> = []
    // Without a lease nothing keeps a settlement from being applied twice: one that was sent once has ended.
    const open = leases.filter((lease) => !lease.isVanished || !lease.uncertain)
    const overtaken: Array<Lease> = []
    for (const chunk of [...portioned(open, deliveriesPerCall), overtaken]) {
      if (chunk.length === 0) continue
      const leased = new Set(chunk.filter((lease) => !lease.isVanished))
      const isOrdered = gate.counts(chunk)
      const from = monotonic()
      const answer = yield* connection.evaluate(
        settle,
        [
          stream.key,
          keys.retry(group, stream.channel),
          keys.waiting,
          keys.bodies(group, stream.channel),
          keys.dead,
          keys.retries(group),
          keys.meta,
          keys.counts,
          keys.trials(group, stream.channel),
          ...(chunk.some((lease) => lease.mark !== "") ? once.keys : []),
          ...(isOrdered ? gate.keysOf(stream.channel) : [])
        ],
        [
          group,
          consumer,
          stream.channel,
          keys.events,
          isOrdered ? 1 : 0,
          ...chunk.flatMap((lease) => [
            lease.position,
            lease.isVanished ? 0 : lease.count,
            ...actionOf(lease),
            lease.mark,
            lease.token,
            lease.orderingKey ?? ""
          ])
        ]
      ).pipe(
        // The group is gone, and with it every delivery of it: nothing is left to settle.
        Effect.catchIf(
          (error) => error.reason === "NoGroup",
          () => {
            const positions = chunk.map((lease) => lease.position)
            return Effect.succeed(isOrdered ? [positions, [], 0] : positions)
          }
        ),
        settling(chunk),
        gate.orLost,
        Effect.mapError(fail(operation))
      )
      const [reply, messages, vanished] = isOrdered
        ? answer as readonly [ReadonlyArray<string>, HandedOver, number]
        : [answer as ReadonlyArray<string>, [], 0] as const
      const positions = new Set(reply)
      onSettled(stream.key)
      for (const lease of chunk) {
        // A renewal that was on its way has found the entry gone: the settlement is sent again, without a lease.
        if (positions.has(lease.position) && lease.isVanished && leased.has(lease)) overtaken.push(lease)
        else if (positions.has(lease.position) && !lease.uncertain) refused.push(lease)
        // Done, and reported when the whole call is done. If the rest of it fails, this settlement is sent once more.
        else lease.uncertain = true
      }
      freed.push(...yield* gate.handOver(stream.channel, messages, vanished, from))
    }
    return refused
  })

  /** Acknowledges leases of one stream that orders, and frees their keys; returns the refused ones. */
  const leaveGate = Effect.fnUntraced(function*(
    stream: GroupStream,
    leases: ReadonlyArray<Lease>,
    freed: Array<Lease>
  ) {
    const refused: Array<Lease> = []
    for (const chunk of chunked(leases, deliveriesPerLeave)) {
      const generation = gate.generation()
      const from = monotonic()
      const [value, positions, messages, vanished] = (yield* connection.evaluate(
        leave,
        [stream.key, keys.counts, keys.taken(group), ...gate.keysOf(stream.channel)],
        [
          group,
          consumer,
          stream.channel,
          stream.isRetry ? 1 : 0,
          gate.stampOf(chunk),
          chunk.reduce((sum, lease) => sum + (lease.isDuplicate ? 1 : 0), 0),
          chunk.length,
          ...chunk.map((lease) => lease.position),
          ...chunk.map((lease) => lease.orderingKey ?? "")
        ],
        // On another connection nothing is known of what was held.
        { isCurrent: () => gate.generation() === generation }
      ).pipe(
        Effect.catchIf(
          (error) => error.reason === "NoGroup",
          () => Effect.succeed([null, chunk.map((_, i) => i + 1), [], 0])
        ),
        settling(chunk),
        gate.orLost,
        Effect.mapError(fail("ack"))
      )) as readonly [string | null, ReadonlyArray<number>, HandedOver, number]
      onSettled(stream.key)
      const others = new Set(positions.map((index) => chunk[index - 1]!))
      refused.push(...others)
      for (const lease of chunk) if (!others.has(lease)) lease.uncertain = true
      freed.push(...yield* gate.handOver(stream.channel, messages, vanished, from, gate.learn(value, generation)))
    }
    return refused
  })

  const giveBack = Effect.fnUntraced(function*(leases: ReadonlyArray<Lease>) {
    for (const [stream, some] of Map.groupBy(leases, (lease) => lease.stream)) {
      const isGiven = yield* Effect.isSuccess(fenced("redeliver", stream, some, [], (lease) => [
        "ready",
        "",
        // It has not been handed out to anybody.
        Entry.encodeDescribed(
          { ...describe(lease, lease.attempt), deliveries: lease.deliveryCount - 1, isHead: true },
          lease.payload
        )
      ]))
      forget(some)
      if (!isGiven) yield* gate.lost
    }
  })

  const release = (settled: ReadonlyMap<GroupStream, ReadonlyArray<Lease>>) => {
    for (const leases of settled.values()) {
      forget(leases)
      for (const lease of leases) once.forget(lease)
    }
  }

  const acknowledgement: Action = (lease) => ["ack", lease.isDuplicate ? "u" : "", ""]

  const acknowledge = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>, freed: Array<Lease>) {
    const refused: Array<Delivery> = []
    const now = monotonic()
    const plain: Array<Ack.Batch[number]> = []
    const mine = heldByStream(deliveries, refused)
    for (const [stream, held] of mine) {
      const leases: Array<Lease> = []
      const marked: Array<Lease> = []
      for (const lease of held) (lease.mark === "" ? leases : marked).push(lease)
      if (marked.length > 0) {
        refused.push(...(yield* once.ack(stream, marked, freed)))
        onSettled(stream.key)
      }
      // The trials of a suspect are removed in the same step, which a plain XACK cannot do.
      const isOrdered = gate.counts(leases)
      const sure = leases.filter((lease) =>
        (isOrdered || now < lease.heldUntil) && !lease.uncertain && !lease.isSuspect && !lease.isVanished
      )
      if (isOrdered) refused.push(...(yield* leaveGate(stream, sure, freed)))
      else for (const chunk of chunked(sure, Ack.positionsPerAck)) plain.push([stream, chunk])
      if (sure.length < leases.length) {
        const others = sure.length === 0 ? leases : leases.filter((lease) => !sure.includes(lease))
        refused.push(...(yield* fenced("ack", stream, others, freed, acknowledgement)))
      }
    }
    if (plain.length > 0) yield* Effect.mapError(ackPlainly(plain), fail("ack"))
    release(mine)
    return refused
  })

  /** Gives back what a settlement hands over and this member does not take, also when the settlement fails in the end. */
  const givingBack = <A>(settlement: (freed: Array<Lease>) => Effect.Effect<A, BrokerError>) =>
    Effect.suspend(() => {
      const freed: Array<Lease> = []
      const settled = settlement(freed)
      return gate.isOrdering()
        ? Effect.ensuring(settled, Effect.suspend(() => freed.length === 0 ? Effect.void : giveBack(freed)))
        : settled
    })

  const ack: Member["ack"] = (deliveries) => givingBack((freed) => acknowledge(deliveries, freed))

  const settleAll = (operation: string, deliveries: ReadonlyArray<Delivery>, actionOf: Action) =>
    givingBack(Effect.fnUntraced(function*(freed: Array<Lease>) {
      const refused: Array<Delivery> = []
      const mine = heldByStream(deliveries, refused)
      for (const [stream, leases] of mine) {
        refused.push(...(yield* fenced(operation, stream, leases, freed, actionOf)))
      }
      release(mine)
      return refused
    }))

  // The fenced script acknowledges, and frees the key.
  const drop: Member["drop"] = (deliveries) => settleAll("ack", deliveries, acknowledgement)

  const redeliver: Member["redeliver"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("redeliver", items.map((item) => item.delivery), (lease) => {
      const { attempt, delayMillis } = wanted.get(lease)!
      const again = attempt > lease.attempt ? "+" : ""
      const body = Entry.encodeDescribed({ ...describe(lease, attempt), isHead: gate.counts([lease]) }, lease.payload)
      return delayMillis > 0
        ? [`wait${again}`, `${Math.ceil(delayMillis)}\n${waitingMember(group, lease.channel, lease.origin)}`, body]
        : [`ready${again}`, "", body]
    })
  }

  const bury: Member["bury"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("bury", items.map((item) => item.delivery), (lease) => [
      "dead",
      Entry.letterKey(group, lease.channel, wanted.get(lease)!.failure.reason),
      Entry.encodeDescribed({
        ...describe(lease, lease.attempt),
        // A dead letter does not expire: a requeue wants it handled.
        expiresAtMillis: undefined,
        channel: lease.channel,
        group,
        failure: wanted.get(lease)!.failure
      }, lease.payload)
    ])
  }

  return { ack, drop, redeliver, bury, giveBack }
}
