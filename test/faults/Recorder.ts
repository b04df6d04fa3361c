/**
 * The account of a run: the receipts of publishers, and the deliveries of handlers.
 *
 * A message is identified by its text, `<publisher>-<number>`. A publisher counts up, and publishes one message after the other.
 */

/** A delivery, as its handler saw it. */
export interface Handled {
  readonly group: string
  /** The consumer. Order is promised to one that handles one message at a time. */
  readonly consumer: string
  readonly channel: string
  readonly text: string
  readonly deliveryCount: number
  /** When it began to acknowledge the message, if it does so itself. */
  readonly settlingAt?: number | undefined
  /** Milliseconds, by the clock of this machine. */
  readonly at: number
  /** When the message was published, by the clock of Redis. */
  readonly publishedAt?: number
}

export interface Expectation {
  /** Every group that must have handled all messages. */
  readonly groups: ReadonlyArray<string>
  /** Consumers with a concurrency of 1 whose order is checked. Default: none. */
  readonly ordered?: ReadonlyArray<string> | undefined
  /**
   * Groups that complete each message once, and the consumers that may have reported a message without completing it: those that were
   * killed.
   */
  readonly once?: {
    readonly groups: ReadonlyArray<string>
    readonly mayRepeat: (consumer: string) => boolean
  } | undefined
  /** Messages that ended in another known way: dead letters, and those that are still scheduled. */
  readonly isKept?: ((group: string, text: string) => boolean) | undefined
  /** Whether the fault may lose a message: its loss is counted, and no violation. `from`: when its publish began. Default: none. */
  readonly mayBeLost?: ((from: number) => boolean) | undefined
}

export interface Account {
  readonly messages: number
  readonly lost: number
  readonly repeated: number
  readonly violations: ReadonlyArray<string>
}

const some = (texts: ReadonlyArray<string>) => texts.slice(0, 5).join(", ") + (texts.length > 5 ? ", …" : "")

export class Recorder {
  readonly #told = new Map<string, { readonly dueAt: number | undefined; readonly from: number }>()
  readonly #handled: Array<Handled> = []
  /** The last beginning of each message, by group and text. */
  readonly #begun = new Map<string, Handled>()
  readonly #ended = new Set<string>()

  /** Records an acknowledged publish. `dueAt`: no handler may see it earlier. `from`: when the publish began. */
  told(text: string, dueAt?: number, from = Date.now()): void {
    this.#told.set(text, { dueAt, from })
  }

  /** From now on the message may be delivered or not. */
  unsure(text: string): void {
    this.#told.delete(text)
  }

  handled(delivery: Handled): void {
    this.#handled.push(delivery)
    this.#ended.add(`${delivery.group}\n${delivery.text}`)
  }

  /** Records that a handler has begun. */
  begun(delivery: Handled): void {
    this.#begun.set(`${delivery.group}\n${delivery.text}`, delivery)
  }

  /** Lists the messages that a consumer has begun, and no consumer has handled. */
  heldBy(consumer: string): ReadonlyArray<string> {
    return [...this.#begun].flatMap(([key, begun]) =>
      begun.consumer === consumer && !this.#ended.has(key) ? [begun.text] : []
    )
  }

  /** When a group last began with a message, if that was after `at`. */
  begunAfter(at: number, group: string, text: string): number | undefined {
    const begun = this.#begun.get(`${group}\n${text}`)
    return begun !== undefined && begun.at > at ? begun.at : undefined
  }

  get messages(): number {
    return this.#told.size
  }

  /** Lists the acknowledged messages whose publish began in this time. */
  toldBetween(from: number, to = Number.POSITIVE_INFINITY): ReadonlyArray<string> {
    return [...this.#told].filter(([, told]) => told.from >= from && told.from < to).map(([text]) => text)
  }

  /** When a group first handled a message whose publish began after `at`. */
  firstOfAfter(at: number, group: string): number | undefined {
    return this.#handled.find((delivery) =>
      delivery.at >= at && delivery.group === group && (this.#told.get(delivery.text)?.from ?? 0) >= at
    )?.at
  }

  get deliveries(): ReadonlyArray<Handled> {
    return this.#handled
  }

  /** Lists the milliseconds between the due time and the delivery of each message of a group. */
  lateBy(group: string): ReadonlyArray<number> {
    return this.#handled.flatMap(({ at, group: by, text }) => {
      const dueAt = this.#told.get(text)?.dueAt
      return by === group && dueAt !== undefined ? [at - dueAt] : []
    })
  }

  /** The first delivery after a moment, of a group if one is given. */
  firstAfter(at: number, group?: string): Handled | undefined {
    return this.#handled.find((delivery) => delivery.at >= at && (group === undefined || delivery.group === group))
  }

  /** Checks I1 to I4, as far as handlers can tell. */
  account({ groups, isKept = () => false, mayBeLost = () => false, once, ordered = [] }: Expectation): Account {
    const counts = new Map<string, number>()
    const finished = new Set<string>()
    const again: Array<string> = []
    const latest = new Map<string, number>()
    const violations: Array<string> = []
    const early: Array<string> = []
    const disordered: Array<string> = []
    for (const { at, channel, consumer, deliveryCount, group, text } of this.#handled) {
      const key = `${group}\n${text}`
      counts.set(key, (counts.get(key) ?? 0) + 1)
      if (once?.groups.includes(group) === true) {
        if (finished.has(key)) again.push(text)
        if (!once.mayRepeat(consumer)) finished.add(key)
      }
      const dueAt = this.#told.get(text)?.dueAt
      if (dueAt !== undefined && at < dueAt) early.push(`${text} by ${dueAt - at} ms`)
      // A delayed message has no place in the order; of one that nobody was told of it is not known whether it was delayed.
      const isInOrder = this.#told.has(text) && dueAt === undefined
      if (deliveryCount !== 1 || !isInOrder || !ordered.includes(consumer)) continue
      const split = text.lastIndexOf("-")
      const line = `${group}\n${consumer}\n${channel}\n${text.slice(0, split)}`
      const number = Number(text.slice(split + 1))
      if (number < (latest.get(line) ?? -1)) disordered.push(`${text} after ${latest.get(line)}`)
      latest.set(line, number)
    }
    const lost = new Set<string>()
    const wrongly: Array<string> = []
    for (const group of groups) {
      for (const [text, { from }] of this.#told) {
        if (counts.has(`${group}\n${text}`) || isKept(group, text)) continue
        lost.add(`${text} for ${group}`)
        if (!mayBeLost(from)) wrongly.push(`${text} for ${group}`)
      }
    }
    if (wrongly.length > 0) violations.push(`I1: ${wrongly.length} lost: ${some(wrongly)}`)
    if (again.length > 0) violations.push(`I2: ${again.length} handled again after their end: ${some(again)}`)
    if (disordered.length > 0) violations.push(`I3: ${disordered.length} out of order: ${some(disordered)}`)
    if (early.length > 0) violations.push(`I4: ${early.length} early: ${some(early)}`)
    return {
      messages: this.#told.size,
      lost: lost.size,
      repeated: [...counts.values()].filter((count) => count > 1).length,
      violations
    }
  }
}
