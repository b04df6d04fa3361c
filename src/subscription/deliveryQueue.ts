/** The queue of deliveries that wait for a handler. */
import type { HeldDelivery } from "./heldDelivery.ts"

/** At most this many taken places are kept before the first one that waits. */
const mostTaken = 1024

/** Deliveries in order of arrival. A delivery may leave this process while it is in the queue; then its place is skipped. */
export class DeliveryQueue {
  #items: Array<HeldDelivery> = []
  #head = 0

  get size(): number {
    return this.#items.length - this.#head
  }

  push(held: HeldDelivery): void {
    this.#items.push(held)
  }

  /** Takes the next place; its delivery may have left. Call it only if `size` is above 0. */
  shift(): HeldDelivery {
    const held = this.#items[this.#head++]!
    if (this.#head === this.#items.length) this.clear()
    else if (this.#head > mostTaken) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return held
  }

  /** Puts deliveries before all others. */
  putBack(some: ReadonlyArray<HeldDelivery>): void {
    this.#items = [...some, ...this.#items.slice(this.#head)]
    this.#head = 0
  }

  /** The delivery that has waited longest. */
  get oldest(): HeldDelivery | undefined {
    while (this.size > 0 && this.#items[this.#head]!.phase !== "waiting") this.#head++
    return this.#items[this.#head]
  }

  /** All deliveries that still wait. */
  get waiting(): Array<HeldDelivery> {
    return this.#items.slice(this.#head).filter(({ phase }) => phase === "waiting")
  }

  clear(): void {
    this.#items = []
    this.#head = 0
  }
}
