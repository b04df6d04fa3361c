/**
 * Step sizes for reading items of unknown size: a step reads as many items as make about 1 MiB, judged by the last steps. A command that copies
 * much, or has a long reply, holds up all other commands.
 */
const charactersPerStep = 2 ** 20

export class Steps {
  /** Number of items for the next step. */
  size: number
  private readonly most: number
  private readonly characters: number
  /** Estimated characters of an item. It falls by at most half in a step: large items may follow large ones. */
  private weight = 1

  constructor(most: number, first = 4, characters = charactersPerStep) {
    this.most = most
    this.size = Math.min(first, most)
    this.characters = characters
  }

  /** Takes note of the result of a step. */
  took(items: number, characters: number): void {
    if (items === 0) return
    this.weight = Math.max(1, characters / items, this.weight / 2)
    this.size = Math.max(1, Math.min(this.most, 2 * this.size, Math.floor(this.characters / this.weight)))
  }
}

/** Returns the total number of characters in the fields of entries. */
export const charactersIn = (
  entries: ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string> | null, ...ReadonlyArray<unknown>]>
): number => {
  let sum = 0
  for (const [, fields] of entries) for (const field of fields ?? []) sum += field.length
  return sum
}
