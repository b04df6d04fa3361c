import type { Script } from "../../Redis.ts"

/**
 * Lists the ticks whose time has come.
 *
 * KEYS: ticks, recurring. ARGV: how many at most. Reply: {now in ms, ms until the next (0: some are due; -1: nothing recurs), then
 * for each that is due: key, its time, its definition up to the body (recurrence and channel; "" when it is gone)}.
 */
export const ticks: Script = {
  name: "ticks",
  lua: `
local ticks, recurring = KEYS[1], KEYS[2]
local limit = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', ticks, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
local first = tonumber(redis.call('ZRANGE', ticks, 0, 0, 'WITHSCORES')[2])
local wait = -1
if first then wait = first <= now and 0 or math.min(math.ceil(first - now), 2000000000) end
local reply = {string.format('%.0f', now), wait}
for i = 1, #due, 2 do
  local definition = redis.call('HGET', recurring, due[i]) or ''
  local a = string.find(definition, '\\n', 1, true)
  local b = a and string.find(definition, '\\n', a + 1, true)
  reply[#reply + 1] = due[i]
  reply[#reply + 1] = due[i + 1]
  reply[#reply + 1] = b and string.sub(definition, 1, b - 1) or ''
end
return reply
`
}
