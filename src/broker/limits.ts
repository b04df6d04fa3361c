/**
 * The limits of a channel where programs, or parts of one program, define different ones. There are three cases: the limits are not known
 * (`undefined`), the channel is defined without limits (`none`), or it has limits.
 *
 * The rule: nothing is removed that one of the definitions would keep. So each limit counts only where all have it, at its most generous.
 * The script `createChannel` decides it for the programs, by the same rule.
 */
import { isHigher } from "./position.ts"
import type { Limits } from "./publishing.ts"

/** A definition without limits. */
export const none: Limits = Object.freeze({})

const both = <A>(a: A | undefined, b: A | undefined, choose: (a: A, b: A) => A): A | undefined =>
  a === undefined || b === undefined ? undefined : choose(a, b)

/** Returns the limits that keep everything that one of two definitions keeps. */
export const generous = (a: Limits, b: Limits): Limits => ({
  maxLength: both(a.maxLength, b.maxLength, Math.max),
  minId: both(a.minId, b.minId, (a, b) => isHigher(b, a) ? a : b),
  maxAgeMillis: both(a.maxAgeMillis, b.maxAgeMillis, Math.max)
})

/** Writes limits as the registry stores them: JSON, or nothing where there are none. */
export const encode = ({ maxAgeMillis, maxLength, minId }: Limits): string => {
  const text = JSON.stringify({ maxLength, minId, maxAgeMillis })
  return text === "{}" ? "" : text
}

/** Writes a definition as programs record it: maximal length, minimal position and maximal age in ms, `-` for each that is not defined. */
export const record = ({ maxAgeMillis, maxLength, minId }: Limits): string =>
  [maxLength, minId, maxAgeMillis === undefined ? undefined : Math.ceil(maxAgeMillis)]
    .map((value) => value === undefined ? "-" : String(value)).join(" ")

/** Returns the warning about definitions that differ. */
export const difference = (channel: string, mine: Limits, all: string): string =>
  `rotif: channel "${channel}" is defined with different limits (here ${
    encode(mine) || "none"
  }), in this program or others; what one of ` +
  `them keeps is kept, so ${
    all === "" ? "no limits" : all
  } count until the others have not been heard of for ten minutes`
