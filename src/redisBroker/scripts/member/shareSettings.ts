import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"

/**
 * Tells what a process is set to, and what all are set to that have told it lately.
 *
 * KEYS: settings. ARGV: what this one is set to, for how many ms that counts. Reply: what all are set to, at most 100.
 *
 * Processes that are set to the same are one member. ZREM passes when memory is full, and lets the rest pass.
 */
export const shareSettings: Script = {
  name: "shareSettings",
  lua: `
local settings = KEYS[1]
local mine, millis = ARGV[1], tonumber(ARGV[2])
${checking}
local problem = wrongType(settings, 'zset')
if problem then return problem end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', settings, '', unpack(redis.call('ZRANGEBYSCORE', settings, '-inf', '(' .. now, 'LIMIT', 0, 100)))
redis.call('ZADD', settings, 'GT', now + millis, mine)
local found, all = redis.call('ZRANGE', settings, -100, -1, 'WITHSCORES'), {}
for i = 1, #found, 2 do all[#all + 1] = found[i] end
redis.call('PEXPIRE', settings, math.ceil(tonumber(found[#found]) - now) + 1)
return all
`
}
