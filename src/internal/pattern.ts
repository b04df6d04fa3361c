/**
 * Patterns over names of dot-separated segments: `*` is exactly one segment, `**` one or more.
 *
 * Matching goes through the name once, whatever the pattern is: it carries the set of all places in the pattern that the segments so
 * far can have led to, 32 places in each word of bits. Nothing of the text becomes a regular expression.
 */
import type { Selector } from "../Broker.ts"

export const compile = (pattern: string): (name: string) => boolean => {
  if (!pattern.includes("*")) return (name) => name === pattern
  const matches = matcher(pattern.split("."))
  return (name) => matches(name.split("."))
}

/**
 * The channel of the archive of dead letters, and those below it. They hold what Rotif itself has written: a group reads them when it names
 * them, and never through a wildcard. The rule is in the name, so that all programs of a namespace agree about it.
 */
export const archive = "dlq-archive"

export const isArchive = (channel: string): boolean => channel === archive || channel.startsWith(`${archive}.`)

/** What a group reads that is registered for this pattern. */
export const reading = (pattern: string): (name: string) => boolean => {
  const matches = compile(pattern)
  // One that begins with the name itself has named it.
  return !pattern.includes("*") || isArchive(pattern) ? matches : (name) => !isArchive(name) && matches(name)
}
/** What other libraries (minimatch, and with it the predecessor) understand, and here stands for itself: it would match nothing. */
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

/** What is wrong with a pattern that means something elsewhere and nothing here. */
export const globProblem = (pattern: string): string | undefined => globs.find(([glob]) => glob.test(pattern))?.[1]

/** The patterns a group with this selector is registered for; a name is a pattern too. */
export const patternsOf = (selector: Selector): ReadonlyArray<string> =>
  selector._tag === "Pattern" ? [selector.pattern] : selector.names

/** What a group with this selector reads. */
export const readingOf = (selector: Selector): (name: string) => boolean =>
  selector._tag === "Pattern" ? reading(selector.pattern) : matcherOf(selector)

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
  // A place is how many segments of the pattern lie behind. From which places a segment leads on: by its text, or whatever it is.
  const always = new Int32Array(words)
  const byText = new Map<string, Int32Array>()
  // The places behind a "**", which takes more segments without leading on.
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
