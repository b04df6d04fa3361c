/**
 * How many messages a consumer may hold: one number for all of its shards and channels.
 *
 * A place is taken before a message is asked for, so that no two reads take the same one. Beside the handlers, so many messages wait here as
 * will have begun within some tens of milliseconds, judged by how long handlers took: fast handlers are fed in batches, and behind slow ones
 * nothing waits that another consumer could have.
 */
import { Effect, Latch } from "effect"

/** Handlers are fed for so long in advance. */
const aheadMillis = 50

/** At most so many messages wait by default, or as many as there are handlers. */
const mostByDefault = 100

/** One handler counts as one part in so many of the average. */
const smoothing = 8

export interface Prefetch {
  /** At most so many messages wait. */
  readonly most: number
  /** So many wait before anything is known of the handlers. */
  readonly first: number
  /** It is always `most`: nothing waits for a handler, but for somebody to settle it. */
  readonly isFixed: boolean
}

/**
 * What the options say. Without a number it begins with nothing and grows; a number is believed until handlers turn out to be slower. Where
 * messages are settled by hand it is how many may be unsettled beside `concurrency`.
 */
export const prefetchOf = (given: number | undefined, concurrency: number, isManual: boolean): Prefetch =>
  isManual
    ? { most: given ?? concurrency, first: given ?? concurrency, isFixed: true }
    : { most: given ?? Math.max(concurrency, mostByDefault), first: given ?? 0, isFixed: false }

export class Capacity {
  readonly concurrency: number
  readonly #prefetch: Prefetch
  readonly #busy: () => number
  #allowed: number
  #averageMillis: number | undefined
  #isStalled = false
  #held = 0
  #reserved = 0
  #asking = 0
  #claiming = 0
  readonly #freed = Latch.makeUnsafe(false)

  /** `busy`: how many handlers run, or are about to. */
  constructor(concurrency: number, prefetch: Prefetch, busy: () => number) {
    this.#busy = busy
    this.concurrency = concurrency
    this.#prefetch = prefetch
    this.#allowed = prefetch.first
  }

  /** How many messages may wait now. */
  get prefetch(): number {
    return this.#isStalled ? 0 : this.#allowed
  }

  get held(): number {
    return this.#held
  }

  /** No message more may be held, whoever asks. */
  get isFull(): boolean {
    return this.#held >= this.concurrency + this.prefetch
  }

  private get room(): number {
    return this.concurrency + this.prefetch - this.#held - this.#reserved
  }

  /** What is claimed is not fetched in advance: it is begun at once. */
  private get claimRoom(): number {
    return Math.min(this.room, this.concurrency - this.#busy())
  }

  /** A read is worth its cost when half of the prefetch is free; it must not wait while a handler could start. */
  private get worthwhile(): number {
    return Math.max(1, Math.ceil(this.prefetch / 2))
  }

  /** How long a handler took. */
  measured(millis: number): void {
    this.#averageMillis = this.#averageMillis === undefined
      ? millis
      : this.#averageMillis + (millis - this.#averageMillis) / smoothing
    if (this.#prefetch.isFixed) return
    const wanted = Math.floor(this.concurrency * aheadMillis / Math.max(this.#averageMillis, 0.001))
    // It grows step by step: the first ones may not be like the rest.
    this.#allowed = Math.min(wanted, this.#allowed * 2 + 1, this.#prefetch.most)
  }

  /** A handler has ended, so that places get free again; whether nothing was fetched in advance until then. */
  ended(): boolean {
    if (this.#claiming > 0) this.free()
    if (!this.#isStalled) return false
    this.#isStalled = false
    this.free()
    return true
  }

  /** Nothing more is fetched in advance, until a handler has ended. */
  stall(): void {
    this.#isStalled = true
  }

  get isStalled(): boolean {
    return this.#isStalled
  }

  /** Messages have waited here for so long: handlers are slower than it seemed. */
  waited(millis: number): void {
    if (this.#prefetch.isFixed) return
    this.#averageMillis = Math.max(this.#averageMillis ?? 0, millis)
    this.#allowed = 0
  }

  /** Messages have come into the places that were taken for them. */
  hold(count: number): void {
    this.#held += count
  }

  /** One message is held no more. */
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

  /** Whether a reader would get places at once. */
  get hasRoom(): boolean {
    return this.#claiming === 0 && this.room >= this.worthwhile
  }

  /** Waits until a reader gets places: what is claimed comes first. Readers that wait share what gets free. */
  readonly awaitRoom: Effect.Effect<void> = Effect.suspend(() => {
    this.#asking++
    return Effect.ensuring(
      this.waitUntil(() => this.hasRoom),
      Effect.sync(() => {
        this.#asking--
      })
    )
  })

  /** Takes places for a read: all there are, or a fair part of them where others wait. */
  reserve(): number {
    const count = this.#claiming > 0 ? 0 : Math.max(0, Math.ceil(this.room / (1 + this.#asking)))
    this.#reserved += count
    return count
  }

  /** Takes places for what is claimed: as many as handlers can start. */
  reserveForClaim(): number {
    const count = Math.max(0, this.claimRoom)
    this.#reserved += count
    return count
  }

  /** Gives back places that were taken: what came is held by now. */
  release(count: number): void {
    this.#reserved -= count
    if (count > 0) this.free()
  }

  /** Waits until no read or claim is under way; `wake` ends those that only wait. */
  awaitReleased(wake: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.andThen(wake, this.waitUntil(() => this.#reserved === 0))
  }

  /** Claims when there is a place for it. `wake` makes readers give back theirs; they take none before the claim is over. */
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
