/**
 * Capacity: the number of messages that a consumer may hold, over all of its shards and channels.
 *
 * A place is taken before a message is asked for, so that two reads never take the same one. Beside the running handlers, messages wait here
 * that handlers will start within 50 ms, by the time that handlers took so far. So fast handlers are fed in batches, and no message waits
 * behind slow handlers that another consumer could handle.
 */
import { Effect, Latch } from "effect"

/** Messages for this long are fetched in advance. */
const aheadMillis = 50

/** By default at most this many messages wait, or as many as there are handlers. */
const mostByDefault = 100

/** One handler counts for an eighth of the average. */
const smoothing = 8

export interface Prefetch {
  /** At most this many messages wait. */
  readonly most: number
  /** This many messages wait before the time of a handler is known. */
  readonly first: number
  /** The prefetch is always `most`: messages do not wait for a handler, but for a settlement. */
  readonly isFixed: boolean
}

/**
 * The prefetch of the options. Without a number it starts at 0 and grows. A number holds until handlers are slower than it allows. With
 * settlement by hand it is the number of messages that may be unsettled beside `concurrency`.
 */
export const prefetchOf = (given: number | undefined, concurrency: number, isManual: boolean): Prefetch =>
  isManual
    ? { most: given ?? concurrency, first: given ?? concurrency, isFixed: true }
    : { most: given ?? Math.max(concurrency, mostByDefault), first: given ?? 0, isFixed: false }

export class Capacity {
  readonly concurrency: number
  /** The number of messages that handlers can have at a time. */
  readonly #places: number
  readonly #prefetch: Prefetch
  readonly #busy: () => number
  #allowed: number
  #averageMillis: number | undefined
  #isStalled = false
  #held = 0
  #reserved = 0
  /** The places of batches that are not full. */
  #blocked = 0
  #asking = 0
  #claiming = 0
  readonly #freed = Latch.makeUnsafe(false)

  /**
   * `perHandler`: the number of messages that one handler can have. `busy`: the number of messages that handlers have, or are about to.
   */
  constructor(concurrency: number, perHandler: number, prefetch: Prefetch, busy: () => number) {
    this.#busy = busy
    this.concurrency = concurrency
    this.#places = concurrency * perHandler
    this.#prefetch = prefetch
    this.#allowed = prefetch.first
  }

  /** The number of messages that may wait now. */
  get prefetch(): number {
    return this.#isStalled ? 0 : this.#allowed
  }

  get held(): number {
    return this.#held
  }

  /** Whether no further message may be held. */
  get isFull(): boolean {
    return this.#held + this.#blocked >= this.#places + this.prefetch
  }

  private get room(): number {
    return this.#places + this.prefetch - this.#held - this.#reserved - this.#blocked
  }

  /** Claimed messages are not fetched in advance: they start at once. */
  private get claimRoom(): number {
    return Math.min(this.room, this.#places - this.#busy())
  }

  /** The room that makes a read worth its cost: half of the prefetch. A read must not wait while a handler could start. */
  private get worthwhile(): number {
    return Math.max(1, Math.ceil(this.prefetch / 2))
  }

  /** Takes the time of a handler into account. */
  measured(millis: number): void {
    this.#averageMillis = this.#averageMillis === undefined
      ? millis
      : this.#averageMillis + (millis - this.#averageMillis) / smoothing
    if (this.#prefetch.isFixed) return
    const wanted = Math.floor(this.#places * aheadMillis / Math.max(this.#averageMillis, 0.001))
    // It grows step by step: the first handlers may not be like the rest.
    this.#allowed = Math.min(wanted, this.#allowed * 2 + 1, this.#prefetch.most)
  }

  /** Frees the place of a handler that has ended. Returns whether the capacity was stalled until then. */
  ended(): boolean {
    if (this.#claiming > 0) this.free()
    if (!this.#isStalled) return false
    this.#isStalled = false
    this.free()
    return true
  }

  /** Stalls: nothing more is fetched in advance until a handler has ended. */
  stall(): void {
    this.#isStalled = true
  }

  get isStalled(): boolean {
    return this.#isStalled
  }

  /** Messages have waited here this long: handlers are slower than expected. */
  waited(millis: number): void {
    if (this.#prefetch.isFixed) return
    this.#averageMillis = Math.max(this.#averageMillis ?? 0, millis)
    this.#allowed = 0
  }

  /** Keeps places free while a batch runs that is not full: messages in them would only wait. */
  block(count: number): void {
    this.#blocked += count
  }

  unblock(count: number): void {
    this.#blocked -= count
    if (count > 0) this.free()
  }

  /** Holds messages that came into the places taken for them. */
  hold(count: number): void {
    this.#held += count
  }

  /** One message is no longer held. */
  drop(): void {
    this.#held--
    this.free()
  }

  private free(): void {
    this.#freed.openUnsafe()
  }

  private waitUntil(isSo: () => boolean): Effect.Effect<void> {
    return Effect.whileLoop({
      while: () => !isSo(),
      body: () => {
        this.#freed.closeUnsafe()
        return this.#freed.await
      },
      step: () => {}
    })
  }

  /** Whether a reader gets places at once. */
  get hasRoom(): boolean {
    return this.#claiming === 0 && this.room >= this.worthwhile
  }

  /** Waits until a reader gets places. Claims come first. Readers that wait share the places that get free. */
  readonly awaitRoom: Effect.Effect<void> = Effect.suspend(() => {
    this.#asking++
    return Effect.ensuring(
      this.waitUntil(() => this.hasRoom),
      Effect.sync(() => {
        this.#asking--
      })
    )
  })

  /** Takes places for a read: all there are, or a fair part of them if other readers wait. */
  reserve(): number {
    const count = this.#claiming > 0 ? 0 : Math.max(0, Math.ceil(this.room / (1 + this.#asking)))
    this.#reserved += count
    return count
  }

  /** Takes places for a claim: as many as handlers can start. */
  reserveForClaim(): number {
    const count = Math.max(0, this.claimRoom)
    this.#reserved += count
    return count
  }

  /** Gives back places that were taken. The messages that came are held by now. */
  release(count: number): void {
    this.#reserved -= count
    if (count > 0) this.free()
  }

  /** Waits until no read or claim is under way. `wake` ends those that only wait. */
  awaitReleased(wake: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.andThen(wake, this.waitUntil(() => this.#reserved === 0))
  }

  /** Claims when there is a place. `wake` makes readers give back their places; they take none before the claim is over. */
  claimFirst<A, E>(wake: Effect.Effect<void>, claim: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      this.#claiming++
      return wake.pipe(
        Effect.andThen(this.waitUntil(() => this.claimRoom > 0)),
        Effect.andThen(claim),
        Effect.ensuring(Effect.sync(() => {
          this.#claiming--
          this.free()
        }))
      )
    })
  }
}
