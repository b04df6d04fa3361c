/**
 * A lease on Redis Streams: an entry of the group's pending list, of which owner and delivery count are the token and the idle
 * time is the age. What a member holds is remembered with its stream.
 */
import type { Delivery } from "../../Broker.ts"
import { Inspect, publicPart } from "../../internal/inspected.ts"
import * as Entry from "../entry.ts"
import type { RawEntries } from "../replies.ts"

export interface Source {
  readonly key: string
  readonly channel: string
  readonly isRetry: boolean
  readonly held: Map<string, Lease>
}

export class Lease implements Delivery {
  readonly id: string
  readonly channel: string
  readonly payload: string
  readonly headers: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly publishedAtMillis: number
  readonly attempt: number
  readonly deliveryCount: number
  readonly crashes: number
  readonly isSuspect: boolean
  readonly malformed: string | undefined
  readonly expiresAtMillis: number | undefined
  /** Set at the hand-out, by the server's clock. */
  expiresInMillis: number | undefined
  readonly source: Source
  readonly position: string
  readonly origin: string
  readonly history: Entry.Meta["history"]
  /** How often this very entry was handed out: the token, together with the owner. */
  readonly count: number
  /** Until when nobody else can have it, on this process's monotonic clock. */
  heldUntil: number
  /** A settlement was sent that is not known to have failed: if the next one is refused, that one did it. */
  uncertain = false
  /** A settlement was sent: its mark is not to be renewed any more, or it would come back after it was freed. */
  isEnding = false
  /** A limit has removed its entry, and with it the lease: it is this member's alone, and nothing in Redis says so any more. */
  isVanished = false
  /** Its key was done before: it is acknowledged without being handled. */
  isDuplicate = false
  /** The mark it has begun by, and the token that tells this from other beginnings; empty where it has not. */
  mark = ""
  token = ""

  constructor(source: Source, position: string, entry: Entry.Entry, count: number, heldUntil: number, tried: string) {
    this.id = entry.id
    this.channel = source.channel
    this.payload = entry.payload
    this.headers = entry.headers
    this.params = entry.params
    this.publishedAtMillis = entry.publishedAtMillis
    this.attempt = entry.attempt
    this.deliveryCount = entry.deliveries + count
    this.crashes = entry.crashes + crashesOf(tried, count)
    this.isSuspect = entry.isSuspect === true || count > 1 || this.crashes > 0
    this.malformed = entry.malformed
    this.expiresAtMillis = entry.expiresAtMillis
    this.expiresInMillis = undefined
    this.source = source
    this.position = position
    this.origin = entry.origin
    this.history = entry.history
    this.count = count
    this.heldUntil = heldUntil
  }

  [Inspect]() {
    return publicPart(this)
  }
}

/** What a source is called in the trials of its group and channel. */
export const kindOf = ({ isRetry }: Source): "l" | "r" => isRetry ? "r" : "l"

/** The field of a delivery there. */
export const fieldOf = (source: Source, position: string): string => `${kindOf(source)}${position}`

/** How many consumers were lost after the handler had begun, as told by its trials: what its present owner has begun is no crash. */
const crashesOf = (tried: string, count: number): number => {
  // Almost all messages: nothing was tried, and nobody was lost.
  if (tried === "") return 0
  const [, times = "0", at = "0"] = /^(\d{1,9}) (\d{1,15})$/.exec(tried) ?? []
  return Math.max(0, Number(times) - (Number(at) >= count ? 1 : 0))
}

export const describe = (lease: Lease, attempt: number): Entry.Meta => ({
  id: lease.id,
  headers: lease.headers,
  params: lease.params,
  publishedAtMillis: lease.publishedAtMillis,
  attempt,
  deliveries: lease.deliveryCount,
  crashes: lease.crashes,
  // One whose handler has come to an end is none any more.
  isSuspect: lease.isSuspect && attempt === lease.attempt ? true : undefined,
  origin: lease.origin,
  history: lease.history,
  expiresAtMillis: lease.expiresAtMillis
})

/** A plain XACK is sent only while the lease has at least this part of its time left; otherwise the fenced script. */
export const surelyHeld = 0.5

/** Records what was handed out, as held since `from` on this process's monotonic clock. */
export const take = (
  source: Source,
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
    const lease = new Lease(
      source,
      position,
      Entry.decode(position, fields),
      counts?.get(position) ?? 1,
      from + leaseMillis * surelyHeld,
      tried?.get(position) ?? ""
    )
    source.held.set(position, lease)
    out.push(lease)
  }
  return out
}
