/**
 * The messages of a channel in the order of their positions.
 *
 * Every message has a number, counted from the first one ever stored. The place of a group is such a number, and stays right when messages are
 * removed from the head.
 */
import type { Delivery, NewMessage } from "../Broker.ts"
import type { Position } from "../broker/position.ts"
import { firstIndex, isAfter, Positions } from "../broker/position.ts"

type Strings = Readonly<Record<string, string>>

export type Content = Pick<NewMessage, "id" | "payload" | "headers" | "params" | "expiresInMillis" | "orderingKey">

/** A stored message. It never changes, and all groups share it. */
export interface Stored extends Pick<Delivery, "id" | "payload" | "headers" | "params" | "orderingKey"> {
  readonly position: Position
  readonly expiresAtMillis: number | undefined
}

const none: Strings = Object.freeze(Object.create(null) as Record<string, string>)

/** Copies strings by name: later changes by the publisher must not reach the stored message, nor changes by one handler another handler. */
export const copy = (strings: Strings | undefined): Strings => {
  const keys = strings === undefined ? [] : Object.keys(strings)
  if (keys.length === 0) return none
  const out: Record<string, string> = Object.create(null)
  for (const key of keys) out[key] = strings![key]!
  return Object.freeze(out)
}

export class Log {
  private readonly positions = new Positions()
  private entries: Array<Stored> = []
  /** Entries at the head of `entries` that are removed and not cleared away yet. */
  private gone = 0
  /** The number of the oldest message kept. */
  first = 0

  /** The number of the next message stored. */
  get end(): number {
    return this.first + this.length
  }

  /** The position of the newest message ever stored. */
  get last(): Position {
    return this.positions.last
  }

  get length(): number {
    return this.entries.length - this.gone
  }

  /** Its time to live is counted from `sinceMillis`. */
  add(message: Content, nowMillis: number, sinceMillis: number): Stored {
    const stored: Stored = {
      position: this.positions.next(nowMillis),
      id: message.id,
      payload: message.payload,
      headers: copy(message.headers),
      params: copy(message.params),
      orderingKey: message.orderingKey,
      expiresAtMillis: message.expiresInMillis === undefined ? undefined : sinceMillis + message.expiresInMillis
    }
    this.entries.push(stored)
    return stored
  }

  /** Returns the message with this number. It must not have been removed. */
  at(number: number): Stored {
    return this.entries[number - this.first + this.gone]!
  }

  /** Returns the number of the first kept message after this position. */
  after(position: Position): number {
    return this.numberOf((stored) => isAfter(stored.position, position))
  }

  /** Returns the number of the first kept message at or after this position. */
  from(position: Position): number {
    return this.numberOf((stored) => !isAfter(position, stored.position))
  }

  /** Removes the messages before this number, and returns how many. */
  removeBefore(number: number): number {
    const removed = Math.min(number, this.end) - this.first
    if (removed <= 0) return 0
    this.first += removed
    this.gone += removed
    // Moving the rest costs no more than was removed since the last time.
    if (this.gone >= this.entries.length - this.gone) {
      this.entries = this.entries.slice(this.gone)
      this.gone = 0
    }
    return removed
  }

  private numberOf(holds: (stored: Stored) => boolean): number {
    return firstIndex(this.entries, this.gone, holds) - this.gone + this.first
  }
}
