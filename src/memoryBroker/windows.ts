/** Deduplication windows: the first message with a key on a channel, until the time of the window is over. */
import type { Due } from "./dueQueue.ts"
import { DueQueue } from "./dueQueue.ts"

/** The first message with a key; without a position it was scheduled. The object is the identity of this message. */
export interface First {
  readonly position: string | undefined
  readonly id: string
}

interface Window {
  readonly channel: string
  readonly key: string
  readonly first: First
}

export class Windows {
  private readonly windows = new Map<string, Map<string, Due<Window>>>()
  private readonly ends = new DueQueue<Window>()

  /** Returns the first message with this key, if its window is open. */
  find(channel: string, key: string, nowMillis: number): First | undefined {
    // Two for each lookup, so that they do not pile up.
    this.expire(nowMillis, 2)
    const window = this.windows.get(channel)?.get(key)
    return window === undefined || window.dueAtMillis <= nowMillis ? undefined : window.value.first
  }

  open(channel: string, key: string, first: First, endAtMillis: number): void {
    this.forget(channel, key)
    const window = this.ends.add(endAtMillis, { channel, key, first })
    const keys = this.windows.get(channel)
    if (keys === undefined) this.windows.set(channel, new Map([[key, window]]))
    else keys.set(key, window)
  }

  /** Moves the end of the window that this message has opened. */
  move(channel: string, key: string, first: First, endAtMillis: number): void {
    if (this.windows.get(channel)?.get(key)?.value.first === first) this.open(channel, key, first, endAtMillis)
  }

  /** Ends the window that this message has opened. */
  close(channel: string, key: string, first: First): void {
    if (this.windows.get(channel)?.get(key)?.value.first === first) this.forget(channel, key)
  }

  private forget(channel: string, key: string): void {
    const keys = this.windows.get(channel)
    const window = keys?.get(key)
    if (keys === undefined || window === undefined) return
    this.ends.remove(window)
    keys.delete(key)
    if (keys.size === 0) this.windows.delete(channel)
  }

  /** Forgets windows whose time is over, up to the limit, and returns whether there are more. */
  expire(nowMillis: number, most: number): boolean {
    for (let left = most;; left--) {
      const { first } = this.ends
      if (first === undefined || first.dueAtMillis > nowMillis) return false
      if (left === 0) return true
      this.forget(first.value.channel, first.value.key)
    }
  }
}
