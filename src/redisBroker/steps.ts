/**
 * How many items are read in one step where nobody knows how large they are: as many as may be about 1 MiB, by what the last steps have given.
 * A command that copies much holds everybody up, and so does a reply that is long.
 */
const charactersPerStep = 2 ** 20

export class Steps {
  /** How many items the next step takes. */
  size: number
  private readonly most: number
  private readonly characters: number
  /** How large an item is, about. What was large lately may be so again. */
  private weight = 1

  constructor(most: number, first = 4, characters = charactersPerStep) {
    this.most = most
    this.size = Math.min(first, most)
    this.characters = characters
  }

  /** What a step has given. */
  took(items: number, characters: number): void {
    if (items === 0) return
    this.weight = Math.max(1, characters / items, this.weight / 2)
    this.size = Math.max(1, Math.min(this.most, 2 * this.size, Math.floor(this.characters / this.weight)))
  }
}

/** How long the fields of entries are together. */
export const charactersIn = (
  entries: ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string> | null, ...ReadonlyArray<unknown>]>
): number => {
  let sum = 0
  for (const [, fields] of entries) for (const field of fields ?? []) sum += field.length
  return sum
}
