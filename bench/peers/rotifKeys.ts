/**
 * Rotif with 10,000 ordering keys.
 */
import { makeOpen } from "./rotif.ts"

export const open = makeOpen(false, undefined, 10_000)
