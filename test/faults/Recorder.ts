/**
 * The account of a run: what publishers were told, and what handlers saw.
 *
 * A message is known by its text, `<publisher>-<number>`, where a publisher counts up and publishes one after the other.
 */

/** A delivery, as its handler saw it. */
export interface Handled {
  readonly group: string
  /** The consumer: an order is promised to one that handles one message at a time. */
  readonly consumer: string
  readonly channel: string
  readonly text: string
  readonly deliveryCount: number
  /** When it began to acknowledge it, where it does that itself. */
  readonly settlingAt?: number | undefined
  /** By the clock of this machine, milliseconds. */
  readonly at: number
  /** When the message was published, by the clock of Redis. */
  readonly publishedAt?: number
}

export interface Expectation {
  /** Every group that has to have handled all of it. */
  readonly groups: ReadonlyArray<string>
  /** Consumers with a concurrency of 1 whose order is looked at. Default: none. */
  readonly ordered?: ReadonlyArray<string> | undefined
  /**
   * Groups that handle everything to its end once, and the consumers that did not come to the end of all they told: those that were
   * killed.
   */
  readonly once?: {
    readonly groups: ReadonlyArray<string>
    readonly mayRepeat: (consumer: string) => boolean
  } | undefined
  /** What became of it otherwise, and is known: dead letters, what is still scheduled. */
  readonly isKept?: ((group: string, text: string) => boolean) | undefined
  /** A message that the fault may take along: counted where it is lost, and no violation. `from`: when its publish began. Default: none. */
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

  /** A publish was acknowledged. `dueAt`: nobody may see it earlier. `from`: when it began. */
  told(text: string, dueAt?: number, from = Date.now()): void {
    this.#told.set(text, { dueAt, from })
  }

  /** It may be delivered or not from here on: nothing is expected of it. */
  unsure(text: string): void {
    this.#told.delete(text)
  }

  handled(delivery: Handled): void {
    this.#handled.push(delivery)
    this.#ended.add(`${delivery.group}\n${delivery.text}`)
  }

  /** A handler has begun. */
  begun(delivery: Handled): void {
    this.#begun.set(`${delivery.group}\n${delivery.text}`, delivery)
  }

  /** What a consumer has begun, and nobody has handled. */
  heldBy(consumer: string): ReadonlyArray<string> {
    return [...this.#begun].flatMap(([key, begun]) =>
      begun.consumer === consumer && !this.#ended.has(key) ? [begun.text] : []
    )
  }

  /** When a group began with a message last, if that was after a moment. */
  begunAfter(at: number, group: string, text: string): number | undefined {
    const begun = this.#begun.get(`${group}\n${text}`)
    return begun !== undefined && begun.at > at ? begun.at : undefined
  }

  get messages(): number {
    return this.#told.size
  }

  /** The messages whose publish began in this time, and was acknowledged. */
  toldBetween(from: number, to = Number.POSITIVE_INFINITY): ReadonlyArray<string> {
    return [...this.#told].filter(([, told]) => told.from >= from && told.from < to).map(([text]) => text)
  }

  /** When a group first handled a message whose publish began after a moment. */
  firstOfAfter(at: number, group: string): number | undefined {
    return this.#handled.find((delivery) =>
      delivery.at >= at && delivery.group === group && (this.#told.get(delivery.text)?.from ?? 0) >= at
    )?.at
  }

  get deliveries(): ReadonlyArray<Handled> {
    return this.#handled
  }

  /** By how many milliseconds the deliveries of a group came after their messages were due. */
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

  /** I1 to I4, as far as handlers can tell. */
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
