/**
 * Patterns over names of dot-separated segments: `*` is exactly one segment, `**` one or more.
 *
 * Matching compares whole segments and, after a mismatch, goes back only to the last `**`; nothing of the text becomes a
 * regular expression.
 */
import type { Selector } from "../Broker.ts"

export const compile = (pattern: string): (name: string) => boolean => {
  if (!pattern.includes("*")) return (name) => name === pattern
  const wanted = pattern.split(".")
  return (name) => matchSegments(wanted, name.split("."))
}

/** The patterns a group with this selector is registered for; a name is a pattern too. */
export const patternsOf = (selector: Selector): ReadonlyArray<string> =>
  selector._tag === "Pattern" ? [selector.pattern] : selector.names

export const matcherOf = (selector: Selector): (name: string) => boolean => {
  if (selector._tag === "Pattern") return compile(selector.pattern)
  const names = new Set(selector.names)
  return (name) => names.has(name)
}

const matchSegments = (wanted: ReadonlyArray<string>, segments: ReadonlyArray<string>): boolean => {
  let w = 0
  let s = 0
  let lastDouble = -1
  let retryFrom = 0
  while (s < segments.length) {
    if (wanted[w] === "**") {
      // It takes one segment at once, and more when what follows does not match.
      lastDouble = w++
      retryFrom = ++s
    } else if (w < wanted.length && (wanted[w] === "*" || wanted[w] === segments[s])) {
      w++
      s++
    } else if (lastDouble >= 0) {
      w = lastDouble + 1
      s = ++retryFrom
    } else {
      return false
    }
  }
  return w === wanted.length
}
