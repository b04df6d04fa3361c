/** Dead letters in the order of their death, and their offers to subscriptions. */
import type { Failure } from "../Broker.ts"
import type { Conclusion, Letter, LetterCount, LetterRange, Offer } from "../broker/deadLetters.ts"
import { pastOf } from "../broker/deadLetters.ts"
import type { Position } from "../broker/position.ts"
import { firstIndex, format, isAfter, isPosition, parse, Positions } from "../broker/position.ts"
import { Signal } from "../internal/wake.ts"
import type { Lease, Redelivery } from "./group.ts"
import type { Stored } from "./log.ts"

interface Dead {
  readonly position: Position
  readonly letter: Letter
  readonly stored: Stored
  /** The letter was requeued or removed, and is not cleared away yet. */
  isGone: boolean
}

/** A message that leaves the dead letters and begins with attempt 1. */
export interface Requeued extends Pick<Redelivery, "stored" | "deliveryCount" | "isSuspect" | "history"> {
  readonly group: string
  readonly channel: string
}

/** An offered letter without a conclusion. */
interface Offered {
  readonly position: Position
  token: string
  count: number
  freeAtMillis: number
}

/** The place of a subscription to dead letters. */
interface Subscription {
  cursor: Position
  readonly offered: Map<string, Offered>
}

export class Letters {
  private readonly positions = new Positions()
  private dead: Array<Dead> = []
  /** How many of `dead` are gone. */
  private gone = 0
  /** All letters before this index are gone. */
  private head = 0
  /** Number of letters by group, channel and reason. */
  private readonly kinds = new Map<string, LetterCount>()
  private readonly subscriptions = new Map<string, Subscription>()
  private tokens = 0
  private readonly resumed: Array<() => void>
  private readonly onRemoved: (letter: Letter) => void
  /** Woken when a letter may be offered that could not be before. */
  readonly available = new Signal()

  /** Fibers that wait are put into `resumed`, and go on after the operation. */
  constructor(resumed: Array<() => void>, onRemoved: (letter: Letter) => void) {
    this.resumed = resumed
    this.onRemoved = onRemoved
  }

  get size(): number {
    return this.dead.length - this.gone
  }

  add(lease: Lease, failure: Failure, nowMillis: number): void {
    const position = this.positions.next(nowMillis)
    this.count(lease.cursor.group.name, lease.channel, failure.reason, 1)
    this.dead.push({
      position,
      isGone: false,
      // A requeued message is to be handled, however late.
      stored: { ...lease.again(lease.attempt).stored, expiresAtMillis: undefined },
      letter: {
        letterId: format(position),
        group: lease.cursor.group.name,
        diedAtMillis: position.millis,
        failure,
        id: lease.id,
        channel: lease.channel,
        payload: lease.payload,
        headers: lease.headers,
        params: lease.params,
        orderingKey: lease.orderingKey,
        publishedAtMillis: lease.publishedAtMillis,
        attempt: lease.attempt,
        deliveryCount: lease.deliveryCount,
        crashes: lease.crashes,
        history: lease.history,
        malformed: undefined
      }
    })
    this.wake()
  }

  list({ after, before, limit, minAgeMillis = 0, order }: LetterRange, nowMillis: number): ReadonlyArray<Letter> {
    const from = Math.max(this.head, after === undefined ? 0 : this.indexAfter(parse(after)))
    const to = before === undefined ? this.dead.length : this.indexFrom(parse(before))
    const letters: Array<Letter> = []
    const step = order === "oldest" ? 1 : -1
    for (let i = step > 0 ? from : to - 1; i >= from && i < to && letters.length < limit; i += step) {
      const { isGone, letter } = this.dead[i]!
      if (!isGone) letters.push(letter)
    }
    return minAgeMillis <= 0
      ? letters
      : letters.filter(({ diedAtMillis }) => diedAtMillis <= nowMillis - minAgeMillis)
  }

  get(letterId: string): Letter | undefined {
    return this.find(letterId)?.letter
  }

  /** Takes letters out, and returns their messages. */
  requeue(
    items: ReadonlyArray<{ readonly letterId: string; readonly payload?: string | undefined }>
  ): ReadonlyMap<string, Requeued> {
    const out = new Map<string, Requeued>()
    for (const { letterId, payload } of items) {
      const dead = this.find(letterId)
      if (dead === undefined) continue
      const { attempt, channel, deliveryCount, diedAtMillis, failure, group, history } = dead.letter
      out.set(letterId, {
        group,
        channel,
        stored: payload === undefined ? dead.stored : { ...dead.stored, payload },
        deliveryCount,
        isSuspect: failure.reason === "crashed",
        history: pastOf(history, failure, diedAtMillis, attempt)
      })
    }
    this.take([...out.keys()])
    return out
  }

  remove(letterIds: ReadonlyArray<string>): ReadonlyArray<string> {
    for (const letterId of new Set(letterIds)) {
      const dead = this.find(letterId)
      if (dead !== undefined) this.onRemoved(dead.letter)
    }
    return this.take(letterIds)
  }

  private take(letterIds: ReadonlyArray<string>): ReadonlyArray<string> {
    const gone: Array<string> = []
    for (const letterId of letterIds) {
      const dead = this.find(letterId)
      if (dead === undefined) continue
      dead.isGone = true
      this.gone++
      const { channel, failure, group } = dead.letter
      this.count(group, channel, failure.reason, -1)
      gone.push(letterId)
    }
    // Taking letters page by page, from either end, must not visit those that were taken before.
    while (this.dead[this.head]?.isGone === true) this.head++
    while (this.dead.at(-1)?.isGone === true) {
      this.dead.pop()
      this.gone--
    }
    // Moving the rest costs no more than was taken since the last time.
    if (this.gone * 2 > this.dead.length) {
      this.dead = this.dead.filter(({ isGone }) => !isGone)
      this.gone = 0
      this.head = 0
    }
    this.head = Math.min(this.head, this.dead.length)
    return gone
  }

  private count(group: string, channel: string, reason: LetterCount["reason"], change: 1 | -1): void {
    const key = `${group}\n${channel}\n${reason}`
    const count = (this.kinds.get(key)?.count ?? 0) + change
    if (count === 0) this.kinds.delete(key)
    else this.kinds.set(key, { group, channel, reason, count })
  }

  counts(): ReadonlyArray<LetterCount> {
    return [...this.kinds.values()]
  }

  offer(
    { leaseMillis, limit, name, start }: {
      readonly name: string
      readonly limit: number
      readonly leaseMillis: number
      readonly start: "earliest" | "latest"
    },
    nowMillis: number
  ): { readonly offers: ReadonlyArray<Offer>; readonly nextInMillis: number | undefined } {
    let subscription = this.subscriptions.get(name)
    if (subscription === undefined) {
      // No position is used again, so the last one stands for all before it.
      subscription = {
        cursor: start === "latest" ? this.positions.last : { millis: 0, sequence: 0 },
        offered: new Map()
      }
      this.subscriptions.set(name, subscription)
    }
    const { offered } = subscription
    const offers: Array<Offer> = []
    const give = ({ letter, position }: Dead, offerCount: number) => {
      const token = String(this.tokens++)
      offered.set(letter.letterId, { position, token, count: offerCount, freeAtMillis: nowMillis + leaseMillis })
      offers.push({ letter, token, offerCount })
    }
    const free = [...offered].filter(([, { freeAtMillis }]) => freeAtMillis <= nowMillis)
      .sort(([, a], [, b]) => a.freeAtMillis - b.freeAtMillis || (isAfter(a.position, b.position) ? 1 : -1))
    for (const [letterId, { count }] of free.slice(0, limit)) {
      const dead = this.find(letterId)
      if (dead === undefined) offered.delete(letterId)
      else give(dead, count + 1)
    }
    for (let i = this.indexAfter(subscription.cursor); i < this.dead.length && offers.length < limit; i++) {
      const dead = this.dead[i]!
      if (!dead.isGone) give(dead, 1)
      subscription.cursor = dead.position
    }
    let first = Infinity
    for (const { freeAtMillis } of offered.values()) first = Math.min(first, freeAtMillis)
    return { offers, nextInMillis: first === Infinity ? undefined : Math.max(1, Math.ceil(first - nowMillis)) }
  }

  conclude(name: string, conclusions: ReadonlyArray<Conclusion>, nowMillis: number): ReadonlyArray<string> {
    const offered = this.subscriptions.get(name)?.offered
    const refused: Array<string> = []
    for (const { letterId, millis = 0, outcome, token } of conclusions) {
      const offer = offered?.get(letterId)
      if (offered === undefined || offer === undefined || offer.token !== token) {
        refused.push(letterId)
      } else if (outcome === "keep" || outcome === "remove") {
        offered.delete(letterId)
        if (outcome === "remove") this.remove([letterId])
      } else {
        offer.freeAtMillis = nowMillis + millis
        if (outcome === "renew") continue
        // An ended offer has no token; its count continues.
        offer.token = ""
        if (outcome === "release") offer.count--
        this.wake()
      }
    }
    return refused
  }

  forget(name: string): void {
    this.subscriptions.delete(name)
  }

  private wake(): void {
    this.resumed.push(...this.available.take())
  }

  private indexFrom(position: Position): number {
    return firstIndex(this.dead, 0, (dead) => !isAfter(position, dead.position))
  }

  private indexAfter(position: Position): number {
    return firstIndex(this.dead, 0, (dead) => isAfter(dead.position, position))
  }

  private find(letterId: string): Dead | undefined {
    if (!isPosition(letterId)) return undefined
    const dead = this.dead[this.indexFrom(parse(letterId))]
    return dead?.letter.letterId === letterId && !dead.isGone ? dead : undefined
  }
}
