import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Records the settings of a process, and lists those of all processes that have recorded theirs lately.
 *
 * KEYS: settings.
 * ARGV: settings of this process, ms for which they are valid.
 * Reply: all settings, at most 100.
 *
 * Processes with the same settings are one member.
 *
 * Writes: ZREM comes first. It passes when memory is full, and lets the rest pass.
 */
export const shareSettings = idempotentScript("shareSettings")`
local settings = KEYS[1]
local mine, millis = ARGV[1], tonumber(ARGV[2])
${wrongType}
local problem = wrongType(settings, 'zset')
if problem then return problem end
${clock}
local now = clock()
redis.call('ZREM', settings, '', unpack(redis.call('ZRANGEBYSCORE', settings, '-inf', '(' .. now, 'LIMIT', 0, 100)))
redis.call('ZADD', settings, 'GT', now + millis, mine)
local found, all = redis.call('ZRANGE', settings, -100, -1, 'WITHSCORES'), {}
for i = 1, #found, 2 do all[#all + 1] = found[i] end
redis.call('PEXPIRE', settings, math.ceil(tonumber(found[#found]) - now) + 1)
return all
`
