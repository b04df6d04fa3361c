/**
 * A queue by due time, and by the order of addition among equal times: a binary heap whose entries know their place, so that any of them can
 * be removed.
 */
export interface Due<out A> {
  readonly dueAtMillis: number
  readonly value: A
}

class Entry<A> implements Due<A> {
  readonly dueAtMillis: number
  readonly value: A
  readonly order: number
  slot: number

  constructor(dueAtMillis: number, value: A, order: number, slot: number) {
    this.dueAtMillis = dueAtMillis
    this.value = value
    this.order = order
    this.slot = slot
  }
}

const isBefore = (one: Entry<unknown>, other: Entry<unknown>): boolean =>
  one.dueAtMillis < other.dueAtMillis || (one.dueAtMillis === other.dueAtMillis && one.order < other.order)

/** Numbers the additions of all queues that share it. */
export interface Counter {
  next: number
}

export class DueQueue<A> {
  private heap: Array<Entry<A>> = []
  private readonly counter: Counter

  constructor(counter: Counter = { next: 0 }) {
    this.counter = counter
  }

  get size(): number {
    return this.heap.length
  }

  /** The earliest entry. */
  get first(): Due<A> | undefined {
    return this.heap[0]
  }

  add(dueAtMillis: number, value: A): Due<A> {
    const entry = new Entry(dueAtMillis, value, this.counter.next++, this.heap.length)
    this.heap.push(entry)
    this.rise(entry)
    return entry
  }

  /** Whether its earliest entry comes before that of another queue with the same counter. */
  isBefore(other: DueQueue<unknown>): boolean {
    const [mine] = this.heap
    const [theirs] = other.heap
    return mine !== undefined && (theirs === undefined || isBefore(mine, theirs))
  }

  /** Removes all entries for which `holds` is true, and returns their number. It visits all entries. */
  removeWhere(holds: (value: A) => boolean): number {
    const before = this.heap.length
    this.heap = this.heap.filter((entry) => !holds(entry.value))
    if (this.heap.length === before) return 0
    for (const [slot, entry] of this.heap.entries()) entry.slot = slot
    for (let slot = (this.heap.length >>> 1) - 1; slot >= 0; slot--) this.sink(this.heap[slot]!)
    return before - this.heap.length
  }

  /** Removes an entry, and returns whether it was there. */
  remove(entry: Due<A>): boolean {
    if (!(entry instanceof Entry) || this.heap[entry.slot] !== entry) return false
    this.removeEntry(entry)
    return true
  }

  private removeEntry(entry: Entry<A>): void {
    const last = this.heap.pop()!
    if (last === entry) return
    this.put(last, entry.slot)
    this.rise(last)
    this.sink(last)
  }

  private put(entry: Entry<A>, slot: number): void {
    entry.slot = slot
    this.heap[slot] = entry
  }

  private rise(entry: Entry<A>): void {
    while (entry.slot > 0) {
      const parent = this.heap[(entry.slot - 1) >>> 1]!
      if (!isBefore(entry, parent)) return
      const slot = parent.slot
      this.put(parent, entry.slot)
      this.put(entry, slot)
    }
  }

  private sink(entry: Entry<A>): void {
    while (true) {
      const left = this.heap[2 * entry.slot + 1]
      if (left === undefined) return
      const right = this.heap[2 * entry.slot + 2]
      const child = right !== undefined && isBefore(right, left) ? right : left
      if (!isBefore(child, entry)) return
      const slot = child.slot
      this.put(child, entry.slot)
      this.put(entry, slot)
    }
  }
}
