/**
 * How many items are read in one step where nobody knows how large they are: as many as may be about 1 MiB, by what the last step has given.
 * A command that copies much holds everybody up, and so does a reply that is long.
 */
const charactersPerStep = 2 ** 20

export class Steps {
  /** How many items the next step takes. */
  size = 4
  private readonly most: number

  constructor(most: number) {
    this.most = most
  }

  /** What a step has given. */
  took(items: number, characters: number): void {
    if (items === 0) return
    const fitting = Math.floor(charactersPerStep / Math.max(1, characters / items))
    this.size = Math.max(1, Math.min(this.most, 2 * this.size, fitting))
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
