/**
 * Positions: `"<ms>-<sequence>"`, ascending, as Redis makes them. The first part is the clock's time, and stays where it was
 * while the clock is set back.
 */
import type { Delivery } from "./delivery.ts"

export interface Position {
  readonly millis: number
  readonly sequence: number
}

export const format = ({ millis, sequence }: Position): string => `${millis}-${sequence}`

/**
 * The fence of a hand-out: its place, then the number of the hand-out, of the same length for all. So it grows, compared as text, along the
 * hand-outs of an ordering key.
 */
export const fenceOf = ({ deliveryCount, origin }: Pick<Delivery, "deliveryCount" | "origin">): string => {
  const [millis = "", sequence = "0"] = origin.split("-")
  return `${millis.padStart(16, "0")}-${sequence.padStart(20, "0")}-${String(deliveryCount).padStart(10, "0")}`
}

/** A position without its second part is the lowest of its millisecond. */
export const parse = (text: string): Position => {
  const dash = text.indexOf("-")
  return dash < 0
    ? { millis: Number(text), sequence: 0 }
    : { millis: Number(text.slice(0, dash)), sequence: Number(text.slice(dash + 1)) }
}

/** Whether a text is a position. */
export const isPosition = (text: string): boolean => /^\d{1,16}-\d{1,20}$/.test(text)

/** Whether a text is a position, or the milliseconds of one. */
export const isPositionOrMillis = (text: string): boolean => /^\d{1,16}(-\d{1,20})?$/.test(text)

/** The highest position of a millisecond. */
export const lastOf = (millis: number): string => `${millis}-18446744073709551615`

/** The milliseconds of a position. */
export const millisOf = (position: string): number => Number(position.slice(0, position.indexOf("-")))

const numbersIn = (position: string): ReadonlyArray<bigint> =>
  position.split("-").map((part) => BigInt(/^\d+$/.test(part) ? part : 0))

/** Whether one text is a higher position than another. A sequence of Redis may be beyond the whole numbers of JavaScript. */
export const isHigher = (one: string, other: string): boolean => {
  const [[a = 0n, b = 0n], [c = 0n, d = 0n]] = [numbersIn(one), numbersIn(other)]
  return a > c || (a === c && b > d)
}

export const isAfter = (one: Position, other: Position): boolean =>
  one.millis > other.millis || (one.millis === other.millis && one.sequence > other.sequence)

/** Returns the index of the first item for which `holds` is true. It has to be true for all later items. */
export const firstIndex = <A>(items: ReadonlyArray<A>, from: number, holds: (item: A) => boolean): number => {
  let low = from
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (holds(items[middle]!)) high = middle
    else low = middle + 1
  }
  return low
}

/** Makes positions, each after the one before. `0-0` is never made: it stands for "before everything". */
export class Positions {
  last: Position = { millis: 0, sequence: 0 }

  next(nowMillis: number): Position {
    const millis = Math.floor(nowMillis)
    this.last = millis > this.last.millis
      ? { millis, sequence: 0 }
      : { millis: this.last.millis, sequence: this.last.sequence + 1 }
    return this.last
  }
}
