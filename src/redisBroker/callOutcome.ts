/**
 * Evidence of a publish whose reply was lost: where to find out later whether it took effect.
 *
 * A plain publish is searched in the log. A script keeps its answer under the name of the call for `keptMillis`. Until then the same call
 * gets the same answer, even if the message was promoted, replaced, cancelled or handled since, or its window is over. A deduplication
 * window that lasts as long is the answer itself: it holds the name of the call that opened it.
 */
import type { Appended } from "../Broker.ts"
import { uniqueNames } from "../internal/uniqueName.ts"

/** A script's answer is kept for this long. */
export const keptMillis = 600_000

/** An answer is not relied on in this last part of its time: the clocks of the processes and of Redis may run at different rates. */
const marginMillis = 30_000

export type Evidence =
  | {
    readonly _tag: "Log"
    /** The message is behind this position, if it was stored. */
    readonly since: string
    readonly sentAt: number
    /** The search continues from this position. */
    readonly from: string
    /** Whether the entry at `since` was gone when the search began; `undefined`: not known yet. */
    readonly isGone: boolean | undefined
  }
  | {
    readonly _tag: "Answer"
    readonly key: string
    readonly read: (value: string) => Appended | undefined
    /** On the monotonic clock. */
    readonly until: number
  }

export const inLog = (since: string, sentAt = performance.now()): Extract<Evidence, { readonly _tag: "Log" }> => ({
  _tag: "Log",
  since,
  from: since,
  isGone: undefined,
  sentAt
})

/** `millis` is the time to live of the key when it is written. */
export const answer = (key: string, read: (value: string) => Appended | undefined, millis = keptMillis): Evidence => ({
  _tag: "Answer",
  key,
  read,
  until: performance.now() + Math.max(0, millis - marginMillis)
})

/** Returns a short name for a call, unique among all processes. */
export const nextCall = uniqueNames()

/** Reads the value of an open window: the position of the first message (`@`: it was scheduled), the name of its call, and its id. */
export const duplicateOf = (first: string): Extract<Appended, { readonly _tag: "Duplicate" }> => {
  const [position = "", call = ""] = first.split(" ", 2)
  return {
    _tag: "Duplicate",
    position: position === "@" ? undefined : position,
    id: first.slice(position.length + call.length + 2)
  }
}
