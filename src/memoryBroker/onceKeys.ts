/**
 * Keys that are done once: who is at each, and which are done, until their time is over. At most so many are remembered; then those
 * that were looked at least recently are forgotten, but never one that somebody is at.
 */
import type { Begun } from "../Broker.ts"

interface Mark {
  /** Who is at it; `undefined` when it is done. */
  readonly token: object | undefined
  readonly untilMillis: number
}

export class Marks {
  // A Map keeps the order of insertion: the first is the one that was looked at least recently.
  private readonly marks = new Map<string, Mark>()
  private readonly capacity: number

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Begins a key, or renews what has begun with this token; never for longer than until the given time. */
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

  /** Whether this token is at the key, also after its time is over as long as nobody has taken over. */
  isAt(name: string, token: object): boolean {
    return this.marks.get(name)?.token === token
  }

  /** Until when what is known of the key is so. */
  untilOf(name: string): number | undefined {
    return this.marks.get(name)?.untilMillis
  }

  /** The key is done, if this token is at it. */
  finish(name: string, token: object, nowMillis: number, untilMillis: number): boolean {
    if (!this.isAt(name, token)) return false
    this.put(name, { token: undefined, untilMillis })
    // More than is added, so that they do not pile up.
    this.tidy(nowMillis, 2)
    return true
  }

  /** The key is free, if this token is at it; whether it was. */
  free(name: string, token: object): boolean {
    return this.isAt(name, token) && this.marks.delete(name)
  }

  /** The key is free, if it was done; whether it was. */
  forget(name: string): boolean {
    const mark = this.marks.get(name)
    return mark !== undefined && mark.token === undefined && this.marks.delete(name)
  }

  clear(): void {
    this.marks.clear()
  }

  /** Forgets, from the least recently used on, at most so many of what is over and of what is too much; whether there may be more. */
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
