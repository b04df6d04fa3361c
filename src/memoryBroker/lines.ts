/** The lines of a group that orders, on one channel: which ordering keys are closed, and the messages that wait behind the head of each. */
import { MutableList } from "effect"

/** `Ready` is a message that became ready again; any other is its number in the log. */
export class Lines<Ready extends object> {
  /** The closed keys. A key behind whose head nothing waits has no list. */
  private readonly closed = new Map<string, MutableList.MutableList<number | Ready> | undefined>()
  /** All that wait, in the order in which they came: numbers ascend. */
  private readonly waiting = new Set<number | Ready>()
  /** Messages that a limit removed while they waited, since they were last reported. */
  private vanished = 0

  /** How many messages wait. */
  get size(): number {
    return this.waiting.size
  }

  /** The message that has waited longest. */
  get oldest(): number | Ready | undefined {
    return this.waiting.values().next().value
  }

  /** The lowest number that waits. */
  get lowest(): number | undefined {
    for (const arrival of this.waiting) if (typeof arrival === "number") return arrival
    return undefined
  }

  /** Closes an open key for this message, and returns true: it is the head. Behind a closed key it waits. */
  enter(key: string, arrival: number | Ready): boolean {
    if (!this.closed.has(key)) {
      this.closed.set(key, undefined)
      return true
    }
    const line = this.closed.get(key) ?? MutableList.make<number | Ready>()
    this.closed.set(key, line)
    MutableList.append(line, arrival)
    this.waiting.add(arrival)
    return false
  }

  /** Takes the next head of a key whose head was settled. With none the key opens. Messages below `first` are not in the log any more. */
  next(key: string, first: number): number | Ready | undefined {
    const line = this.closed.get(key)
    while (line !== undefined && line.length > 0) {
      const arrival = MutableList.take(line) as number | Ready
      this.waiting.delete(arrival)
      if (typeof arrival !== "number" || arrival >= first) return arrival
      this.vanished++
    }
    this.closed.delete(key)
    return undefined
  }

  takeVanished(): number {
    const count = this.vanished
    this.vanished = 0
    return count
  }
}
