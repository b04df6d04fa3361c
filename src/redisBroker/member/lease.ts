/**
 * A lease on Redis Streams: an entry of the group's pending list. Owner and delivery count are its token, the idle time is its age.
 * Each stream remembers the leases that the member holds on it.
 */
import { Effect } from "effect"
import type { Delivery } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import { Inspect, publicPart } from "../../internal/inspected.ts"
import * as Entry from "../entry.ts"
import type { RawEntries } from "../replies.ts"
import { millisOfTime } from "../replies.ts"

/** A log or a retry stream, as a member of a group reads it. */
export interface GroupStream {
  readonly key: string
  readonly channel: string
  readonly isRetry: boolean
  /** The leases that the member holds on it, by position. */
  readonly held: Map<string, Lease>
  /** Whether this member has seen an ordering key there. */
  isGated: boolean
}

/** What a member knows about what it holds, from one generation of its connections; see `gate.ts`. */
export interface Stamp {
  readonly value: string
  readonly generation: number
}

export class Lease implements Delivery {
  readonly id: string
  readonly channel: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly orderingKey: string | undefined
  readonly publishedAtMillis: number
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  readonly isSuspect: boolean
  readonly malformed: string | undefined
  readonly expiresAtMillis: number | undefined
  /** Set at the hand-out, by the server's clock. */
  expiresInMillis: number | undefined
  readonly stream: GroupStream
  readonly position: string
  readonly origin: string
  readonly history: Entry.Meta["history"]
  /** Its description says that it is the head of its ordering key. */
  readonly isHead: boolean
  /** The stamp by which it was surely held; nothing where that is not known. */
  stamp: Stamp | undefined = undefined
  /** How often this very entry was handed out: the token, together with the owner. */
  readonly count: number
  /** Until then no other member can have it, on this process's monotonic clock. */
  heldUntil: number
  /** A settlement was sent and is not known to have failed. If the next one is refused, this one was applied. */
  uncertain = false
  /** A settlement was sent: its mark must not be renewed any more, because a renewal would bring back a mark that was freed. */
  isEnding = false
  /** A limit has removed the entry, and the lease with it: only this member has the message, and Redis no longer records that. */
  isVanished = false
  /** Its key was done before: it is acknowledged without being handled. */
  isDuplicate = false
  /** The mark of the key that it has begun, and the token that tells this beginning from others. Empty if it has begun none. */
  mark = ""
  token = ""

  constructor(
    stream: GroupStream,
    position: string,
    entry: Entry.Entry,
    count: number,
    heldUntil: number,
    tried: string
  ) {
    this.id = entry.id
    this.channel = stream.channel
    this.payload = entry.payload
    this.headers = entry.headers
    this.params = entry.params
    this.orderingKey = entry.orderingKey
    this.publishedAtMillis = entry.publishedAtMillis
    this.attempt = entry.attempt
    this.deliveryCount = entry.deliveries + count
    this.crashes = entry.crashes + crashesOf(tried, count)
    this.isSuspect = entry.isSuspect === true || count > 1 || this.crashes > 0
    this.malformed = entry.malformed
    this.expiresAtMillis = entry.expiresAtMillis
    this.expiresInMillis = undefined
    this.stream = stream
    this.position = position
    this.origin = entry.origin
    this.history = entry.history
    this.isHead = entry.isHead === true
    this.count = count
    this.heldUntil = heldUntil
  }

  [Inspect]() {
    return publicPart(this)
  }
}

/** The name of a stream in the trials of its group and channel. */
export const trialKind = ({ isRetry }: GroupStream): "l" | "r" => isRetry ? "r" : "l"

/** The field of a delivery in the trials of its group and channel. */
export const trialField = (stream: GroupStream, position: string): string => `${trialKind(stream)}${position}`

/** The number of consumers that were lost after the handler had begun, by its trials. A trial of the present owner is no crash. */
const crashesOf = (tried: string, count: number): number => {
  // Almost all messages: nothing was tried, and no consumer was lost.
  if (tried === "") return 0
  const [, times = "0", at = "0"] = /^(\d{1,9}) (\d{1,15})$/.exec(tried) ?? []
  return Math.max(0, Number(times) - (Number(at) >= count ? 1 : 0))
}

/** The description that goes with the message when it is handed out again, as the given attempt. */
export const describe = (lease: Lease, attempt: number): Entry.Meta => ({
  id: lease.id,
  headers: lease.headers,
  params: lease.params,
  publishedAtMillis: lease.publishedAtMillis,
  attempt,
  deliveries: lease.deliveryCount,
  crashes: lease.crashes,
  // A message whose handler has ended is no suspect any more.
  isSuspect: lease.isSuspect && attempt === lease.attempt ? true : undefined,
  origin: lease.origin,
  history: lease.history,
  orderingKey: lease.orderingKey,
  expiresAtMillis: lease.expiresAtMillis
})

/** A plain XACK is sent only while the lease has at least this part of its time left; after that, the fenced script. */
export const surelyHeld = 0.5

/** Records entries that were handed out, as held since `from` on this process's monotonic clock. */
export const take = (
  stream: GroupStream,
  entries: RawEntries,
  counts: ReadonlyMap<string, number> | undefined,
  from: number,
  leaseMillis: number,
  out: Array<Lease> = [],
  tried?: ReadonlyMap<string, string>
): Array<Lease> => {
  for (const [position, fields] of entries) {
    // Trimmed between the hand-out and now: nothing is left to deliver.
    if (fields === null) continue
    const entry = Entry.decode(position, fields)
    // A settlement hands over what a read of this member may have on its way.
    if (entry.orderingKey !== undefined && stream.held.has(position)) continue
    const lease = new Lease(
      stream,
      position,
      entry,
      counts?.get(position) ?? 1,
      from + leaseMillis * surelyHeld,
      tried?.get(position) ?? ""
    )
    stream.held.set(position, lease)
    out.push(lease)
  }
  return out
}

export const isHeld = (lease: Lease): boolean => lease.stream.held.get(lease.position) === lease

/** Removes leases from what the member holds. They stay pending in Redis, and a later look finds them again as lost. */
export const forget = (leases: ReadonlyArray<Lease>): void => {
  for (const lease of leases) lease.stream.held.delete(lease.position)
}

/** Sends a settlement of leases. After an error they have not ended, and if the answer was lost, they may have. */
export const settling = (leases: ReadonlyArray<Lease>) => {
  for (const lease of leases) lease.isEnding = true
  return <A>(sent: Effect.Effect<A, RedisError>) =>
    Effect.tapError(sent, ({ reason }) =>
      Effect.sync(() => {
        for (const lease of leases) {
          lease.isEnding = false
          if (reason === "ConnectionLost") lease.uncertain = true
        }
      }))
}

/** The deliveries that the member holds, by stream. All others go to `refused`. */
export const heldByStream = (
  deliveries: ReadonlyArray<Delivery>,
  refused: Array<Delivery>
): Map<GroupStream, Array<Lease>> => {
  const out = new Map<GroupStream, Array<Lease>>()
  for (const delivery of deliveries) {
    if (!(delivery instanceof Lease) || !isHeld(delivery)) {
      refused.push(delivery)
      continue
    }
    const same = out.get(delivery.stream)
    if (same === undefined) out.set(delivery.stream, [delivery])
    else same.push(delivery)
  }
  return out
}

/** Whether the message of any of these leases has a time to live. */
export const isAnyExpiring = (leases: ReadonlyArray<Lease>): boolean =>
  leases.some((lease) => lease.expiresAtMillis !== undefined)

/** Sets on each lease how long its message may still be handled, by the server's clock. */
export const setExpiry = (connection: Connection, leases: ReadonlyArray<Lease>): Effect.Effect<void, RedisError> =>
  Effect.map(connection.send(["time"], { idempotent: true }), (reply) => {
    const now = millisOfTime(reply)
    for (const lease of leases) {
      if (lease.expiresAtMillis !== undefined) lease.expiresInMillis = lease.expiresAtMillis - now
    }
  })
