import { idempotentScript } from "../../script.ts"
import { bodyFields } from "../parts/bodyFields.ts"
import { noRoom } from "../parts/preconditions.ts"
import { openWindow } from "../parts/window.ts"

/**
 * Publishes ticks of a recurring message and moves it on to its next one, if its time is still the one that the caller read: however many
 * processes try, each tick is published once.
 *
 * KEYS: ticks, recurring, log, window key of each message.
 * ARGV: key, recurrence, its time, time of the next tick, then for each message: id, window in ms.
 * Reply: 1 when it was moved on; 0 when another process was faster or it has changed; -1 when the channel has no log.
 *
 * Writes: types and room are checked first; then the XADDs come first. They can be refused when memory is full, and then nothing has moved.
 */
export const publishTicks = idempotentScript("publishTicks")`
local ticks, recurring, log = KEYS[1], KEYS[2], KEYS[3]
local key, recurrence, from, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local windows, total = KEYS, #ARGV
${noRoom}${bodyFields}${openWindow}
if tonumber(redis.call('ZSCORE', ticks, key)) ~= tonumber(from) then return 0 end
local definition = redis.call('HGET', recurring, key)
if not definition or string.sub(definition, 1, #recurrence + 1) ~= recurrence .. '\\n' then return 0 end
local body = string.sub(definition, string.find(definition, '\\n', #recurrence + 2, true) + 1)
if total > 4 then
  if redis.call('EXISTS', log) == 0 then return -1 end
  local problem = noRoom(log, (total - 4) / 2, #body)
  if problem then return problem end
  if not isBody(body) then return redis.error_reply('ERR the recurring message ' .. key .. ' has no readable body') end
end
for i = 5, total, 2 do
  local id, window = ARGV[i], windows[4 + (i - 5) / 2]
  if redis.call('EXISTS', window) == 0 then
    local position = redis.call('XADD', log, '*', fieldsOf(id, body, 0))
    openWindow(window, position, '- ' .. id, ARGV[i + 1])
  end
end
redis.call('ZADD', ticks, 'XX', at, key)
return 1
`
