import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Counts dead letters of a group within a time.
 *
 * KEYS: storm of the group.
 * ARGV: span in ms, the most that are counted, names of new letters (a name counts once).
 * Reply: the number of letters within the span, at most that many.
 *
 * Writes: ZREM comes first. It passes when memory is full, and lets the rest pass.
 */
export const countLetters = idempotentScript("countLetters")`
local storm = KEYS[1]
local span, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local total = #ARGV
${wrongType}${clock}
local problem = wrongType(storm, 'zset')
if problem then return problem end
local now = clock()
local old = redis.call('ZRANGEBYSCORE', storm, '-inf', now - span, 'LIMIT', 0, 7000)
redis.call('ZREM', storm, '', unpack(old))
for i = 3, total do redis.call('ZADD', storm, 'NX', now, ARGV[i]) end
local over = redis.call('ZCARD', storm) - most
if over > 0 then redis.call('ZREM', storm, unpack(redis.call('ZRANGE', storm, 0, math.min(over, 7000) - 1))) end
if redis.call('ZCARD', storm) > 0 then redis.call('PEXPIRE', storm, math.ceil(span)) end
return math.min(most, redis.call('ZCARD', storm))
`
