/** The edit distance: how many characters must be added, removed or changed to turn one text into the other. */
const distance = (one: string, other: string): number => {
  let row = Array.from({ length: other.length + 1 }, (_, i) => i)
  for (let i = 0; i < one.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < other.length; j++) {
      next.push(Math.min(row[j]! + (one[i] === other[j] ? 0 : 1), row[j + 1]! + 1, next[j]! + 1))
    }
    row = next
  }
  return row[other.length]!
}

/** Finds the known name that was probably meant; `undefined` if none is similar. */
export const nearest = (name: string, names: Iterable<string>): string | undefined => {
  let best: string | undefined
  let least = Infinity
  for (const known of names) {
    const away = distance(name.slice(0, 64).toLowerCase(), known.toLowerCase())
    if (away < least) {
      best = known
      least = away
    }
  }
  return best !== undefined && least <= Math.max(2, Math.floor(best.length / 3)) ? best : undefined
}
