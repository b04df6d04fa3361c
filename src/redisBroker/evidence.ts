/**
 * What tells later what became of a call whose answer was lost.
 *
 * A plain publish is looked for in the log. A script leaves its answer under the name of the call, for `keptMillis`; until then asking again
 * gives the same answer, whatever has become of the message since: promoted, replaced, cancelled, handled, its window over. A
 * deduplication window that lasts as long is that answer itself: it holds the name of the call that opened it.
 */
import type { Appended } from "../Broker.ts"
import { uniqueName } from "../internal/uniqueName.ts"

/** How long a script's answer is kept. */
export const keptMillis = 600_000

/** So long before its end an answer is not relied on any more: the clocks of the processes and of Redis need not run alike. */
const marginMillis = 30_000

export type Evidence =
  | {
    readonly _tag: "Log"
    /** Behind this position the message is, if it was stored. */
    readonly since: string
    readonly sentAt: number
    /** How far it was looked for. */
    readonly from: string
    /** Whether that first position was gone when it was looked for; `undefined`: not known yet. */
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

/** `millis` is how long the key lives from when it is written. */
export const answer = (key: string, read: (value: string) => Appended | undefined, millis = keptMillis): Evidence => ({
  _tag: "Answer",
  key,
  read,
  until: performance.now() + Math.max(0, millis - marginMillis)
})

const process = uniqueName()
let calls = 0

/** A name for a call: unique among processes, and short. */
export const nextCall = (): string => `${process}${(calls++).toString(36)}`

/** Reads the value of an open window: the position of the first message (`@`: it was scheduled), the name of its call, and its id. */
export const duplicateOf = (first: string): Extract<Appended, { readonly _tag: "Duplicate" }> => {
  const [position = "", call = ""] = first.split(" ", 2)
  return {
    _tag: "Duplicate",
    position: position === "@" ? undefined : position,
    id: first.slice(position.length + call.length + 2)
  }
}
