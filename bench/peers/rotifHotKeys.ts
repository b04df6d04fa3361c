/**
 * Rotif with 10 ordering keys: almost every message waits for the one before it.
 */
import { makeOpen } from "./rotif.ts"

export const open = makeOpen(false, undefined, 10)
