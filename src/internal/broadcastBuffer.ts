/**
 * The buffer of a Pub/Sub listener: bounded in messages and in characters, with a policy for a full buffer.
 */
import { Effect } from "effect"
import type { BroadcastMessage } from "../broker/broadcast.ts"

export type Overflow = "bounded" | "dropping" | "sliding"

/** A gap: `dropped` messages are missing (the buffer was full), or an unknown number (listening was interrupted). */
export class Missing {
  readonly dropped: number | undefined
  constructor(dropped: number | undefined) {
    this.dropped = dropped
  }
}

/** This many things arrived that are no messages of Rotif. */
export class Malformed {
  readonly channel: string
  count = 1
  constructor(channel: string) {
    this.channel = channel
  }
}

export type Item = BroadcastMessage | Missing | Malformed

export type Mailbox = ReturnType<typeof make>

/** From this many taken items on, the array is cut when half of it is taken. */
const compactFrom = 1024

const interruption = new Missing(undefined)

const isCast = (item: Item): item is BroadcastMessage => !(item instanceof Missing) && !(item instanceof Malformed)

export const make = (options: {
  readonly capacity: number
  readonly maxChars: number
  readonly overflow: Overflow
}) => {
  const { capacity, maxChars, overflow } = options
  let items: Array<Item | undefined> = []
  let head = 0
  let size = 0
  let chars = 0
  let dropped = 0
  /** Messages dropped since the last item was added, to be reported. */
  let untold = 0
  /** Things that were no messages, in front of a dropped message. */
  const kept: Array<Item> = []
  const waiting = new Set<() => void>()

  const shift = (): Item | undefined => {
    if (head === items.length) return undefined
    const item = items[head]!
    items[head++] = undefined
    if (head >= compactFrom && head * 2 >= items.length) {
      items = items.slice(head)
      head = 0
    }
    if (isCast(item)) {
      size--
      chars -= item.payload.length
    }
    return item
  }

  const last = () => head < items.length ? items.at(-1) : undefined

  const tell = () => {
    if (untold === 0) return
    items.push(new Missing(untold))
    untold = 0
  }

  const wake = () => {
    for (const resume of waiting) {
      waiting.delete(resume)
      return resume()
    }
  }

  /** One message is always taken, however long it is. */
  const isFull = (cast: BroadcastMessage) => size > 0 && (size >= capacity || chars + cast.payload.length > maxChars)

  const dropOldest = () => {
    for (let item = shift(); item !== undefined; item = shift()) {
      if (isCast(item)) return
      // Two interruptions with nothing between them are one gap.
      if (kept.at(-1) !== item) kept.push(item)
      if (kept.length > compactFrom) kept.shift()
    }
  }

  return {
    offer: (cast: BroadcastMessage): void => {
      while (isFull(cast)) {
        dropped++
        if (overflow === "sliding") {
          dropOldest()
          continue
        }
        if (overflow === "bounded") untold++
        return
      }
      tell()
      items.push(cast)
      size++
      chars += cast.payload.length
      wake()
    },
    malformed: (channel: string): void => {
      const previous = last()
      if (previous instanceof Malformed) {
        previous.count++
        return
      }
      items.push(new Malformed(channel))
      wake()
    },
    interrupted: (): void => {
      tell()
      if (last() === interruption) return
      items.push(interruption)
      wake()
    },
    /** The next item, if there is one. */
    poll: (): Item | undefined => {
      const item = kept.shift() ?? shift()
      if (item !== undefined || untold === 0) return item
      tell()
      return shift()
    },
    /** Completes when there is an item. */
    arrived: Effect.callback<void>((resume) => {
      if (kept.length > 0 || untold > 0 || head < items.length) return resume(Effect.void)
      const entry = () => resume(Effect.void)
      waiting.add(entry)
      return Effect.sync(() => waiting.delete(entry))
    }),
    /** The number of messages that wait. */
    size: (): number => size,
    dropped: (): number => dropped
  }
}
