/**
 * The queue of deliveries that wait for a batch handler. It is what a batch collects in: a batch begins when it is full, or when the first of its
 * deliveries has waited for `within`.
 *
 * A message that failed in company comes again in a smaller batch, down to one, so that a bad message fails alone in the end. The largest batch
 * follows from the number of its attempt, which is stored with the message: any process of the group comes to the same size.
 */
import { DeliveryQueue } from "./deliveryQueue.ts"
import type { HeldDelivery, ShardConsumer } from "./heldDelivery.ts"

/** Batches of one size, of one shard if it is given. */
class Lane extends DeliveryQueue {
  readonly most: number

  constructor(most: number) {
    super()
    this.most = most
  }
}

export interface BatchSizes {
  /** At most this many deliveries are in a batch. */
  readonly size: number
  /** After this long, a batch that is not full begins. */
  readonly withinNanos: bigint
  /** A message whose attempts are used up is handled alone. */
  readonly maxRetries: number
  /** At most this many characters of payloads are in a batch, or one payload. */
  readonly mostCharacters: number
  /** Whether all deliveries of a batch are of one shard. */
  readonly isPerShard: boolean
}

/** The size of the largest batch for this attempt: half as many with each further one, and a message's last attempt is its own. */
export const mostOf = ({ maxRetries, size }: Pick<BatchSizes, "maxRetries" | "size">, attempt: number): number => {
  if (attempt <= 1) return size
  return attempt > maxRetries ? 1 : Math.ceil(size / 2 ** Math.min(attempt - 1, 30))
}

export class BatchQueue {
  readonly #sizes: BatchSizes
  readonly #lanes = new Map<ShardConsumer | undefined, Map<number, Lane>>()

  constructor(sizes: BatchSizes) {
    this.#sizes = sizes
  }

  #all(): Array<Lane> {
    return [...this.#lanes.values()].flatMap((lanes) => [...lanes.values()])
  }

  #laneOf(held: HeldDelivery): Lane {
    const shard = this.#sizes.isPerShard ? held.shard : undefined
    let lanes = this.#lanes.get(shard)
    if (lanes === undefined) this.#lanes.set(shard, lanes = new Map())
    // A commit frees one ordering key.
    const isAlone = this.#sizes.isPerShard && held.delivery.orderingKey !== undefined
    const most = isAlone ? 1 : mostOf(this.#sizes, held.delivery.attempt)
    let lane = lanes.get(most)
    if (lane === undefined) lanes.set(most, lane = new Lane(most))
    return lane
  }

  get size(): number {
    let size = 0
    for (const lanes of this.#lanes.values()) for (const lane of lanes.values()) size += lane.size
    return size
  }

  push(held: HeldDelivery): void {
    this.#laneOf(held).push(held)
  }

  /** Puts deliveries before all others. */
  putBack(some: ReadonlyArray<HeldDelivery>): void {
    for (const [lane, same] of Map.groupBy(some, (held) => this.#laneOf(held))) lane.putBack(same)
  }

  get oldest(): HeldDelivery | undefined {
    return earliest(this.#all())?.oldest
  }

  get waiting(): Array<HeldDelivery> {
    return this.#all().flatMap((lane) => lane.waiting)
  }

  clear(): void {
    for (const lane of this.#all()) lane.clear()
  }

  #dueOf({ most, oldest }: Lane): bigint {
    return oldest === undefined || most === 1 ? 0n : oldest.heldSince + this.#sizes.withinNanos
  }

  /** When the next batch begins, even if it is not full, in nanoseconds of the monotonic clock. */
  get dueAt(): bigint | undefined {
    let due: bigint | undefined
    for (const lane of this.#all()) {
      if (lane.oldest === undefined) continue
      const at = this.#dueOf(lane)
      if (due === undefined || at < due) due = at
    }
    return due
  }

  /** Takes the batch that begins now, the one that has waited longest first. `admit` says of each delivery whether it may be in it. */
  take(now: bigint, admit: (held: HeldDelivery) => boolean): ReadonlyArray<HeldDelivery> | undefined {
    const { mostCharacters } = this.#sizes
    const ready = this.#all().filter((lane) => lane.oldest !== undefined)
    for (;;) {
      const lane = earliest(ready.filter((lane) => lane.size >= lane.most || this.#dueOf(lane) <= now))
      if (lane === undefined) return undefined
      const isDue = this.#dueOf(lane) <= now
      const batch: Array<HeldDelivery> = []
      let characters = 0
      let isFull = false
      while (!isFull && lane.size > 0) {
        const held = lane.shift()
        if (!admit(held)) continue
        characters += held.delivery.payload.length
        if (batch.length > 0 && characters > mostCharacters) {
          lane.putBack([held])
          isFull = true
        } else isFull = batch.push(held) >= lane.most
      }
      if (batch.length > 0 && (isFull || isDue)) return batch
      // Some have left: the batch is not full any more.
      lane.putBack(batch)
      ready.splice(ready.indexOf(lane), 1)
    }
  }
}

const earliest = (lanes: ReadonlyArray<Lane>): Lane | undefined => {
  let first: Lane | undefined
  let since = 0n
  for (const lane of lanes) {
    const { oldest } = lane
    if (oldest === undefined || (first !== undefined && oldest.heldSince >= since)) continue
    first = lane
    since = oldest.heldSince
  }
  return first
}
