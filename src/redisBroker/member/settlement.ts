/**
 * How a member ends and renews its leases. Each settlement is fenced by owner and delivery count, but for a plain XACK of whole
 * batches while the leases are surely held. One whose answer was lost is sent again, and what it finds done counts as done.
 */
import { Effect } from "effect"
import type { BrokerError, Delivery, Member, Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import { chunked, portioned } from "../batches.ts"
import * as Entry from "../entry.ts"
import type { Keys } from "../keys.ts"
import { waitingMember } from "../keys.ts"
import { renew as renewScript } from "../scripts/member/renew.ts"
import { settle } from "../scripts/member/settle.ts"
import * as RedisAck from "./ack.ts"
import type { Source } from "./lease.ts"
import { describe, Lease, surelyHeld } from "./lease.ts"
import type { RedisMarks } from "./once.ts"

/** Deliveries settled, or renewed, in one call. */
const deliveriesPerCall = 200
const renewalsPerCall = 1_000

export const make = (setup: {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly monotonic: () => number
  readonly marks: RedisMarks
  /** Something was settled in this stream. */
  readonly onSettled: (stream: string) => void
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}): Pick<Member, "ack" | "drop" | "requeue" | "bury" | "renew"> => {
  const { connection, fail, keys, marks, monotonic, onSettled } = setup
  const { consumer, group, leaseMillis } = setup.membership
  const acknowledge = RedisAck.make({ connection, keys, group, monotonic, onSettled })

  const bySource = (deliveries: ReadonlyArray<Delivery>): Map<Source, Array<Lease>> => {
    const out = new Map<Source, Array<Lease>>()
    for (const delivery of deliveries) {
      if (!(delivery instanceof Lease)) continue
      const same = out.get(delivery.source)
      if (same === undefined) out.set(delivery.source, [delivery])
      else same.push(delivery)
    }
    return out
  }

  /** Sends a settlement; what it refuses although an earlier one may have done it counts as done. */
  const fenced = Effect.fnUntraced(function*(
    operation: string,
    source: Source,
    leases: ReadonlyArray<Lease>,
    describeItem: (lease: Lease) => ReadonlyArray<string | number>
  ) {
    const refused: Array<Delivery> = []
    // Without a lease nothing keeps a second time from being done: what was sent once has ended.
    const open = leases.filter((lease) => !lease.isVanished || !lease.uncertain)
    const overtaken: Array<Lease> = []
    for (const chunk of [...portioned(open, deliveriesPerCall), overtaken]) {
      if (chunk.length === 0) continue
      const leased = new Set(chunk.filter((lease) => !lease.isVanished))
      for (const lease of chunk) lease.isEnding = true
      const reply = (yield* connection.evaluate(
        settle,
        [
          source.key,
          keys.retry(group, source.channel),
          keys.waiting,
          keys.bodies(group, source.channel),
          keys.dead,
          keys.retries(group),
          keys.meta,
          keys.counts,
          keys.trials(group, source.channel),
          ...(chunk.some((lease) => lease.mark !== "") ? [marks.marks, marks.oldMarks] : [])
        ],
        [
          group,
          consumer,
          source.channel,
          keys.events,
          ...chunk.flatMap((lease) => [
            lease.position,
            lease.isVanished ? 0 : lease.count,
            ...describeItem(lease),
            lease.mark,
            lease.token
          ])
        ],
        { idempotent: false }
      ).pipe(
        // The group is gone and with it every delivery of it; there is nothing left to settle.
        Effect.catchIf(
          (error) => error.reason === "NoGroup",
          () => Effect.succeed(chunk.map((lease) => lease.position))
        ),
        Effect.tapError((error) =>
          Effect.sync(() => {
            for (const lease of chunk) {
              lease.isEnding = false
              if (error.reason === "ConnectionLost") lease.uncertain = true
            }
          })
        ),
        Effect.mapError(fail(operation))
      )) as ReadonlyArray<string>
      const positions = new Set(reply)
      onSettled(source.key)
      for (const lease of chunk) {
        // A renewal that was on its way has found its entry gone.
        if (positions.has(lease.position) && lease.isVanished && leased.has(lease)) overtaken.push(lease)
        else if (positions.has(lease.position) && !lease.uncertain) refused.push(lease)
        // Done, and told so when the whole call is: if the rest of it fails, it comes once more.
        else lease.uncertain = true
      }
    }
    return refused
  })

  const nothing = (lease: Lease) => ["ack", lease.isDuplicate ? "u" : "", "", ""]

  /** What this member holds, by stream; all else goes to `refused` without asking. */
  const holding = (deliveries: ReadonlyArray<Delivery>, refused: Array<Delivery>) => {
    const mine = new Map<Source, ReadonlyArray<Lease>>()
    for (const [source, leases] of bySource(deliveries)) {
      const held: Array<Lease> = []
      for (const lease of leases) (source.held.get(lease.position) === lease ? held : refused).push(lease)
      mine.set(source, held)
    }
    return mine
  }

  const letGo = (settled: ReadonlyMap<Source, ReadonlyArray<Lease>>) => {
    for (const [source, leases] of settled) {
      for (const lease of leases) {
        source.held.delete(lease.position)
        marks.leave(lease)
      }
    }
  }

  const ack = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    const now = monotonic()
    const plain: Array<RedisAck.Batch[number]> = []
    const mine = holding(deliveries, refused)
    for (const [source, held] of mine) {
      const leases: Array<Lease> = []
      const marked: Array<Lease> = []
      for (const lease of held) (lease.mark === "" ? leases : marked).push(lease)
      if (marked.length > 0) {
        refused.push(...(yield* marks.finish(source, marked)))
        onSettled(source.key)
      }
      // What is noted of a suspect goes in the same step, which a plain XACK is not.
      const sure = leases.filter((lease) =>
        now < lease.heldUntil && !lease.uncertain && !lease.isSuspect && !lease.isVanished
      )
      for (const chunk of chunked(sure, RedisAck.positionsPerAck)) plain.push([source, chunk])
      if (sure.length < leases.length) {
        const others = sure.length === 0 ? leases : leases.filter((lease) => !sure.includes(lease))
        refused.push(...(yield* fenced("ack", source, others, nothing)))
      }
    }
    if (plain.length > 0) yield* Effect.mapError(acknowledge(plain), fail("ack"))
    letGo(mine)
    return refused
  })

  const settleAll = Effect.fnUntraced(function*(
    operation: string,
    deliveries: ReadonlyArray<Delivery>,
    describeItem: (lease: Lease) => ReadonlyArray<string | number>
  ) {
    const refused: Array<Delivery> = []
    const mine = holding(deliveries, refused)
    for (const [source, leases] of mine) {
      if (leases.length > 0) refused.push(...(yield* fenced(operation, source, leases, describeItem)))
    }
    letGo(mine)
    return refused
  })

  // The script acknowledges, and frees the key.
  const drop: Member["drop"] = (deliveries) => settleAll("ack", deliveries, nothing)

  const requeue: Member["requeue"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("requeue", items.map((item) => item.delivery), (lease) => {
      const { attempt, delayMillis } = wanted.get(lease)!
      const again = attempt > lease.attempt ? "+" : ""
      const description = Entry.encodeMeta(describe(lease, attempt))
      return delayMillis > 0
        ? [
          `wait${again}`,
          `${Math.ceil(delayMillis)}\n${waitingMember(group, lease.channel, lease.origin)}`,
          description,
          lease.payload
        ]
        : [`ready${again}`, "", description, lease.payload]
    })
  }

  const bury: Member["bury"] = (items) => {
    const wanted = new Map(items.map((item) => [item.delivery, item]))
    return settleAll("bury", items.map((item) => item.delivery), (lease) => [
      "dead",
      Entry.letterKey(group, lease.channel, wanted.get(lease)!.failure.reason),
      Entry.encodeMeta({
        ...describe(lease, lease.attempt),
        // Whoever requeues it wants it handled.
        expiresAtMillis: undefined,
        channel: lease.channel,
        group,
        failure: wanted.get(lease)!.failure
      }),
      lease.payload
    ])
  }

  const renew = Effect.fnUntraced(function*(deliveries: ReadonlyArray<Delivery>) {
    const refused: Array<Delivery> = []
    for (const [source, leases] of bySource(deliveries)) {
      refused.push(...leases.filter((lease) => source.held.get(lease.position) !== lease))
      for (
        const mine of chunked(leases.filter((lease) => source.held.get(lease.position) === lease), renewalsPerCall)
      ) {
        const from = monotonic()
        const asked = mine.filter((lease) => !lease.isVanished)
        const [lost, vanished] = asked.length === 0 ? [[], []] : (yield* connection.evaluate(
          renewScript,
          [source.key],
          [group, consumer, ...asked.flatMap((lease) => [lease.position, lease.count])],
          { idempotent: true }
        ).pipe(
          Effect.catchIf(
            (error) => error.reason === "NoGroup",
            () => Effect.succeed([asked.map((lease) => lease.position), []])
          ),
          Effect.mapError(fail("renew"))
        )) as readonly [ReadonlyArray<string>, ReadonlyArray<string>]
        for (const lease of asked) if (vanished.includes(lease.position)) lease.isVanished = true
        const positions = new Set(lost)
        const kept = mine.filter((lease) => !positions.has(lease.position) && !lease.uncertain && !lease.isEnding)
        for (const lease of yield* Effect.mapError(marks.renew(kept), fail("renew"))) positions.add(lease.position)
        for (const lease of mine) {
          // Whether it was settled or lost, the repetition of its settlement will tell.
          if (lease.uncertain) continue
          if (positions.has(lease.position)) {
            source.held.delete(lease.position)
            marks.leave(lease)
            refused.push(lease)
          } else {
            lease.heldUntil = from + leaseMillis * surelyHeld
          }
        }
      }
    }
    return refused
  })

  return { ack, drop, requeue, bury, renew }
}
