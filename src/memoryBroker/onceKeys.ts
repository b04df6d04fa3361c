/**
 * Exactly-once keys: those in progress, with their holder, and those that are done, until their time is over. Bounded: the least recently used
 * keys are forgotten, but never one in progress.
 */
import type { Begun } from "../Broker.ts"

interface Mark {
  /** The token of the holder; `undefined` when the key is done. */
  readonly token: object | undefined
  readonly untilMillis: number
}

export class Marks {
  // A Map keeps the order of insertion: the first key is the least recently used.
  private readonly marks = new Map<string, Mark>()
  private readonly capacity: number

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Begins a key, or renews one that this token holds, until the given time at the latest. */
  begin(name: string, token: object, nowMillis: number, untilMillis: number): Begun {
    const mark = this.find(name, nowMillis)
    if (mark !== undefined && mark.token !== token) {
      if (mark.token !== undefined) return "busy"
      this.put(name, mark)
      return "done"
    }
    this.put(name, { token, untilMillis })
    return "mine"
  }

  /** Whether this token holds the key, also after its time as long as no other token has taken it over. */
  isAt(name: string, token: object): boolean {
    return this.marks.get(name)?.token === token
  }

  /** The time until which the state of the key counts. */
  untilOf(name: string): number | undefined {
    return this.marks.get(name)?.untilMillis
  }

  /** Marks the key as done, if this token holds it. */
  finish(name: string, token: object, nowMillis: number, untilMillis: number): boolean {
    if (!this.isAt(name, token)) return false
    this.put(name, { token: undefined, untilMillis })
    // More than are added, so that they do not pile up.
    this.tidy(nowMillis, 2)
    return true
  }

  /** Frees the key, if this token holds it, and returns whether it did. */
  free(name: string, token: object): boolean {
    return this.isAt(name, token) && this.marks.delete(name)
  }

  /** Frees the key, if it was done, and returns whether it was. */
  forget(name: string): boolean {
    const mark = this.marks.get(name)
    return mark !== undefined && mark.token === undefined && this.marks.delete(name)
  }

  clear(): void {
    this.marks.clear()
  }

  /** Forgets keys that are over or beyond the bound, least recently used first and up to the limit; returns whether there may be more. */
  tidy(nowMillis: number, most = Infinity): boolean {
    let left = most
    for (const [name, { token, untilMillis }] of this.marks) {
      if (untilMillis > nowMillis) {
        if (token !== undefined) continue
        if (this.marks.size <= this.capacity) return false
      }
      if (left-- === 0) return true
      this.marks.delete(name)
    }
    return false
  }

  private find(name: string, nowMillis: number): Mark | undefined {
    const mark = this.marks.get(name)
    return mark === undefined || mark.untilMillis <= nowMillis ? undefined : mark
  }

  private put(name: string, mark: Mark): void {
    this.marks.delete(name)
    this.marks.set(name, mark)
  }
}
