import { idempotentScript } from "../../script.ts"
import { clock, firstTime, millisUntil } from "../parts/time.ts"
import { isText } from "../parts/utf8.ts"

/**
 * Lists the ticks that are due.
 *
 * KEYS: ticks, recurring.
 * ARGV: at most how many.
 * Reply: {now in ms, ms until the next (0: some are due; -1: nothing recurs), then for each due tick: key, its time, its definition up to the
 * body (recurrence and channel)}. A tick without a readable definition is removed: its key comes with time and definition "".
 */
export const dueTicks = idempotentScript("dueTicks")`
local ticks, recurring = KEYS[1], KEYS[2]
local limit = ARGV[1]
${clock}${firstTime}${millisUntil}${isText}
local now = clock()
local due = redis.call('ZRANGEBYSCORE', ticks, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)
local reply = {string.format('%.0f', now), millisUntil(firstTime(ticks), now)}
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
