/**
 * Rotif with `exactlyOnce`.
 */
import { makeOpen } from "./rotif.ts"

export const open = makeOpen(true)
