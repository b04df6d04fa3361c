import { idempotentScript } from "../../script.ts"
import { counters } from "../../counters.ts"
import { groupOf } from "../parts/groupOf.ts"
import { streamInfo } from "../parts/streamInfo.ts"

/**
 * Whether the number of settled deliveries of a retry stream is wrong, where all of its entries have been read. Repair writes the right one.
 *
 * KEYS: retry stream, counts.
 * ARGV: `check` or `repair`, group, channel.
 * Reply: 1 when it is so, else 0.
 */
export const settledCount = idempotentScript("settledCount")`
local retry, counts = KEYS[1], KEYS[2]
local step, group, channel = ARGV[1], ARGV[2], ARGV[3]
local field = '${counters.settledRetries}\\n' .. group .. '\\n' .. channel
${streamInfo}${groupOf}
if redis.call('EXISTS', retry) == 0 then return 0 end
local info = groupOf(retry, group)
if not info or #redis.call('XRANGE', retry, '(' .. info[8], '+', 'COUNT', 1) > 0 then return 0 end
-- It reads an entry as well, so it is called only where it decides.
local right = infoOf(retry)['entries-added'] - info[6]
if (tonumber(redis.call('HGET', counts, field)) or 0) == right then return 0 end
if step == 'repair' then redis.call('HSET', counts, field, right) end
return 1
`
