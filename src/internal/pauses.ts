/** What the pauses of a group cover. */
import type { Pause } from "../Broker.ts"
import { compile } from "./pattern.ts"

/** The pattern that covers every channel. */
export const everything = "**"

/** Which channels are paused, for a member that has to know it for each message. `undefined`: none. */
export const restingOf = (pauses: ReadonlyArray<Pause>): ((channel: string) => boolean) | undefined => {
  if (pauses.length === 0) return undefined
  const covers = pauses.map(({ pattern }) => compile(pattern))
  return (channel) => covers.some((matches) => matches(channel))
}

/** The first of these pauses that covers a channel. */
export const pausedOn = (pauses: ReadonlyArray<Pause>, channel: string): Pause | undefined =>
  pauses.find(({ pattern }) => compile(pattern)(channel))

/** The pauses that cover all channels of this name or pattern, now and in future. */
export const covering = (pauses: ReadonlyArray<Pause>, pattern: string): ReadonlyArray<Pause> =>
  pauses.filter((pause) =>
    pause.pattern === pattern || pause.pattern === everything ||
    (!pattern.includes("*") && compile(pause.pattern)(pattern))
  )

/** The longest wait of one timer: a day. */
const longestMillis = 86_400_000

/** The milliseconds until the first of these pauses may end by itself, at most a day; `Infinity`: none does. */
export const firstEndIn = (pauses: ReadonlyArray<Pause>, nowMillis: number): number =>
  pauses.reduce(
    (first, { untilMillis }) =>
      untilMillis === undefined ? first : Math.min(first, longestMillis, Math.max(1, untilMillis - nowMillis)),
    Infinity
  )
