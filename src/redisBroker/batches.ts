/** Batches: lists in portions for one call each. */
import type { Delivery } from "../Broker.ts"

/** One call moves at most this many characters of payloads, or one payload: a script blocks the server while it runs. */
export const charactersPerCall = 2 ** 20

/** At most this many messages in one pipeline. */
export const messagesPerWrite = 500

/** Splits items into portions of at most `most` items, and fewer where their payloads are large. */
export const portioned = <A extends Pick<Delivery, "payload">>(
  items: ReadonlyArray<A>,
  most: number
): ReadonlyArray<ReadonlyArray<A>> => {
  const out: Array<Array<A>> = []
  let room = 0
  for (const item of items) {
    const portion = out.at(-1)
    room -= item.payload.length
    if (portion !== undefined && portion.length < most && room >= 0) {
      portion.push(item)
    } else {
      out.push([item])
      room = charactersPerCall - item.payload.length
    }
  }
  return out
}

export const chunked = <A>(items: ReadonlyArray<A>, size: number): ReadonlyArray<ReadonlyArray<A>> => {
  const out: Array<ReadonlyArray<A>> = []
  for (let i = 0; i < items.length; i += size) out.push(items.slice(i, i + size))
  return out
}
