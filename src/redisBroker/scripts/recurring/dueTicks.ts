import type { Script } from "../../../Redis.ts"
import { utf8 } from "../parts/utf8.ts"

/**
 * Lists the ticks whose time has come.
 *
 * KEYS: ticks, recurring. ARGV: how many at most. Reply: {now in ms, ms until the next (0: some are due; -1: nothing recurs), then
 * for each that is due: key, its time, its definition up to the body (recurrence and channel)}. What has no such definition is removed:
 * its key comes with time and definition "".
 */
export const dueTicks: Script = {
  name: "dueTicks",
  lua: `
local ticks, recurring = KEYS[1], KEYS[2]
local limit = ARGV[1]
${utf8}
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
  local isBroken = not b or b == a + 1 or not isText(due[i])
  if isBroken then
    redis.call('ZREM', ticks, due[i])
    redis.call('HDEL', recurring, due[i])
  end
  reply[#reply + 1] = due[i]
  reply[#reply + 1] = isBroken and '' or due[i + 1]
  reply[#reply + 1] = isBroken and '' or string.sub(definition, 1, b - 1)
end
return reply
`
}
