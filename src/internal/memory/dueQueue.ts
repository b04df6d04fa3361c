/**
 * What has a time, the earliest first, and what has the same time in the order it was added: a binary heap whose entries know
 * their place, so that any of them can be taken out.
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

const isBefore = <A>(one: Entry<A>, other: Entry<A>): boolean =>
  one.dueAtMillis < other.dueAtMillis || (one.dueAtMillis === other.dueAtMillis && one.order < other.order)

export class DueQueue<A> {
  private readonly heap: Array<Entry<A>> = []
  private added = 0

  get size(): number {
    return this.heap.length
  }

  /** The earliest. */
  get first(): Due<A> | undefined {
    return this.heap[0]
  }

  add(dueAtMillis: number, value: A): Due<A> {
    const entry = new Entry(dueAtMillis, value, this.added++, this.heap.length)
    this.heap.push(entry)
    this.rise(entry)
    return entry
  }

  /** The earliest for which `holds` is true; it looks at all there are, unless that is the earliest of all. */
  firstOf(holds: (value: A) => boolean): Due<A> | undefined {
    const [first] = this.heap
    if (first === undefined || holds(first.value)) return first
    let best: Entry<A> | undefined
    for (const entry of this.heap) {
      if (holds(entry.value) && (best === undefined || isBefore(entry, best))) best = entry
    }
    return best
  }

  /** Takes all out for which `holds` is true; how many there were. */
  removeWhere(holds: (value: A) => boolean): number {
    const found = this.heap.filter((entry) => holds(entry.value))
    for (const entry of found) this.removeEntry(entry)
    return found.length
  }

  /** Takes one out; whether it was in. */
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
