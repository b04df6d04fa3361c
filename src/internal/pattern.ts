/**
 * Patterns over names of dot-separated segments: `*` is exactly one segment, `**` one or more.
 *
 * Matching reads the name once, whatever the pattern is: it keeps the set of all places in the pattern that the segments so far can have
 * reached, 32 places in each word of bits. So the steps are bounded by the segments of the name times the words of the pattern. A matcher with
 * two pointers, which goes back to the last `**`, takes 66,000 steps for one hostile name of 1 KiB, and this one 5,000. Nothing of
 * the text becomes a regular expression.
 */
import type { Selector } from "../Broker.ts"

/** Compiles a pattern into a predicate over names. */
export const compile = (pattern: string): (name: string) => boolean => {
  if (!pattern.includes("*")) return (name) => name === pattern
  const matches = matcher(pattern.split("."))
  return (name) => matches(name.split("."))
}

/**
 * The name of the archive of dead letters. Rotif itself writes to this channel and those below it: a group reads them if it names them, and
 * never through a wildcard. The rule is in the name, so that all programs of a namespace agree about it.
 */
export const archive = "dlq-archive"

export const isArchive = (channel: string): boolean => channel === archive || channel.startsWith(`${archive}.`)

/** The names that a group registered for this pattern reads. */
export const reading = (pattern: string): (name: string) => boolean => {
  const matches = compile(pattern)
  // A pattern that begins with the name of the archive has named it.
  return !pattern.includes("*") || isArchive(pattern) ? matches : (name) => !isArchive(name) && matches(name)
}

/** Wildcards of other libraries (minimatch, which the predecessor used). Here they are plain text, which would match nothing. */
const globs: ReadonlyArray<readonly [RegExp, string]> = [
  [
    /\{[^{}]*(,|\.\.)[^{}]*\}/,
    "\"{…}\" is no choice here: take a subscription for each, or \"*\" for the whole segment"
  ],
  [/\?/, "\"?\" is no wildcard here: write \"*\", which is one whole segment"],
  [/\[[^\]]*\]/, "\"[…]\" is no choice of characters here: write \"*\", which is one whole segment"],
  [/^!/, "\"!\" excludes nothing here: subscribe to what is wanted, or leave the rest out in the handler"],
  [/[@+*?!]\(.*\)/, "\"(…)\" is no choice here: take a subscription for each, or \"*\" for the whole segment"]
]

/** Finds the problem with a pattern that has wildcards of other libraries. */
export const globProblem = (pattern: string): string | undefined => globs.find(([glob]) => glob.test(pattern))?.[1]

/** The patterns that a group with this selector is registered for. A name is a pattern, too. */
export const patternsOf = (selector: Selector): ReadonlyArray<string> =>
  selector._tag === "Pattern" ? [selector.pattern] : selector.names

/** The names that a group with this selector reads. */
export const readingOf = (selector: Selector): (name: string) => boolean =>
  selector._tag === "Pattern" ? reading(selector.pattern) : matcherOf(selector)

/** The names that a selector matches. */
export const matcherOf = (selector: Selector): (name: string) => boolean => {
  if (selector._tag === "Pattern") return compile(selector.pattern)
  const names = new Set(selector.names)
  return (name) => names.has(name)
}

const setBit = (bits: Int32Array, place: number) => {
  bits[place >> 5]! |= 1 << (place & 31)
}

const matcher = (wanted: ReadonlyArray<string>) => {
  const end = wanted.length
  const words = (end >> 5) + 1
  // A place is a number of segments of the pattern that are matched. `byText`: the places that a segment with this text leads on from;
  // `always`: those that any segment leads on from.
  const always = new Int32Array(words)
  const byText = new Map<string, Int32Array>()
  // The places after a "**", which takes more segments without leading on.
  const staying = new Int32Array(words)
  for (const [place, text] of wanted.entries()) {
    if (text === "**") setBit(staying, place + 1)
    if (text === "*" || text === "**") setBit(always, place)
    else byText.set(text, byText.get(text) ?? new Int32Array(words))
  }
  for (const bits of byText.values()) bits.set(always)
  for (const [place, text] of wanted.entries()) {
    const bits = byText.get(text)
    if (bits !== undefined) setBit(bits, place)
  }
  return (segments: ReadonlyArray<string>): boolean => {
    const places = new Int32Array(words)
    places[0] = 1
    for (const segment of segments) {
      const leading = byText.get(segment) ?? always
      let carry = 0
      let any = 0
      for (let i = 0; i < words; i++) {
        const here = places[i]!
        const going = here & leading[i]!
        places[i] = (going << 1) | carry | (here & staying[i]!)
        carry = going >>> 31
        any |= places[i]!
      }
      if (any === 0) return false
    }
    return (places[end >> 5]! >>> (end & 31) & 1) === 1
  }
}
