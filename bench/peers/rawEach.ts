/**
 * ioredis with a round trip for every message, as it is written where nobody thinks of batches.
 */
import { makeOpen } from "./raw.ts"

export const open = makeOpen(false)
