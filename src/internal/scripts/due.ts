import type { Script } from "../../Redis.ts"

/**
 * Names what is due, by the server's clock, so that the caller can name the streams it goes to.
 *
 * KEYS: waiting. ARGV: how many at most. Reply: {members, ms until the next is due (-1: nothing waits)}.
 */
export const due: Script = {
  name: "due",
  lua: `
local waiting = KEYS[1]
local limit = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local members = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, limit)
if #members > 0 then return {members, 0} end
local first = tonumber(redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2])
return {members, first and math.max(1, math.ceil(first - now)) or -1}
`
}
