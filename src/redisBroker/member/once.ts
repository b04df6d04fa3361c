/**
 * Keys that are done once: how a delivery begins by its key, and how it ends with it.
 */
import { Effect } from "effect"
import type { Begun, BrokerError, Delivery, Member, Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import { markOf } from "../../broker/keyNames.ts"
import { chunked } from "../batches.ts"
import type { Keys } from "../keys.ts"
import { ackOnce as finishScript } from "../scripts/member/ackOnce.ts"
import { beginOnce as beginScript } from "../scripts/member/beginOnce.ts"
import type { Source } from "./lease.ts"
import { Lease } from "./lease.ts"

/** A mark ends a little before the lease it goes with, so that whoever claims an expired delivery can begin it. */
const markPart = 0.9

/** Deliveries in one script call. */
const deliveriesPerCall = 500

const isHeld = (lease: Lease) => lease.source.held.get(lease.position) === lease

export const make = ({ connection, fail, keys, membership }: {
  readonly membership: Membership
  readonly keys: Keys
  readonly connection: Connection
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}) => {
  const { group, leaseMillis } = membership
  /** Which of the leases held here has begun by a mark. */
  const begun = new Map<string, Lease>()
  const marks = keys.once(group)
  const oldMarks = keys.olderOnce(group)
  const doneMillis = Math.ceil(Math.max(membership.doneMillis ?? 0, leaseMillis))
  const me = Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(6))).toString("base64url")
  let counter = 0

  /** Marks leases of one token each time, in calls of bounded size. */
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
          beginScript,
          [marks, oldMarks],
          [Math.ceil(leaseMillis * markPart), doneMillis, token, ...chunk.map((lease) => lease.mark)],
          { idempotent: true }
        )) as ReadonlyArray<number>
        for (let i = 0; i < chunk.length; i++) out.push([chunk[i]!, reply[i]!])
      }
    }
    return out
  })

  const begin: Member["begin"] = Effect.fnUntraced(function*(items) {
    const found = new Map<Delivery, Begun>()
    const leases: Array<Lease> = []
    const token = `${me}${(counter++).toString(36)}`
    for (const { delivery, key } of items) {
      // What is not held any more is somebody else's.
      if (!(delivery instanceof Lease) || !isHeld(delivery)) continue
      const name = markOf(delivery.channel, key)
      // A token is one delivery's for a mark: two of them with one key never begin together.
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
      // It ends like a delivery without a key.
      begun.delete(lease.mark)
      lease.mark = ""
    }
    return items.map(({ delivery }): Begun => found.get(delivery) ?? "busy")
  })

  /** Acknowledges leases of one stream that have begun by key; the refused ones. */
  const finish = Effect.fnUntraced(function*(
    source: Source,
    leases: ReadonlyArray<Lease>
  ): Effect.fn.Return<ReadonlyArray<Lease>, BrokerError> {
    const refused: Array<Lease> = []
    for (const chunk of chunked(leases, deliveriesPerCall)) {
      const args: Array<string | number> = [group, source.channel, source.isRetry ? 1 : 0, doneMillis]
      for (const lease of chunk) {
        lease.isEnding = true
        args.push(lease.position, lease.mark, lease.token, lease.isVanished ? -1 : lease.count - 1)
      }
      const reply = (yield* connection.evaluate(
        finishScript,
        [
          source.key,
          marks,
          oldMarks,
          keys.counts,
          ...(chunk.some((lease) => lease.isSuspect) ? [keys.trials(group, source.channel)] : [])
        ],
        args,
        { idempotent: false }
      ).pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            for (const lease of chunk) {
              lease.isEnding = false
              if (error.reason === "ConnectionLost") lease.uncertain = true
            }
          })
        ),
        Effect.mapError(fail("ack"))
      )) as ReadonlyArray<number>
      for (let i = 0; i < chunk.length; i++) {
        const lease = chunk[i]!
        if (reply[i] === 0 || (reply[i] === 2 && !lease.uncertain)) refused.push(lease)
        // Done, and told so when the whole call is: if the rest of it fails, it comes once more.
        else lease.uncertain = true
      }
    }
    return refused
  })

  /** The lease is not held any more. */
  const leave = (lease: Lease): void => {
    if (lease.mark !== "" && begun.get(lease.mark) === lease) begun.delete(lease.mark)
  }

  /** Renews the marks of these leases; those whose key has another owner by now, or is done. */
  const renew = (leases: ReadonlyArray<Lease>): Effect.Effect<ReadonlyArray<Lease>, RedisError> => {
    const marked = leases.filter((lease) => lease.mark !== "")
    return marked.length === 0
      ? Effect.succeed([])
      : Effect.map(
        mark(marked),
        (answers) => answers.filter(([, answer]) => answer !== 1).map(([lease]) => lease)
      )
  }

  return { begin, finish, leave, renew, marks, oldMarks, doneMillis }
}

export type RedisMarks = ReturnType<typeof make>
