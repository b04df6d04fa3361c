import type { Script } from "../../../Redis.ts"
import { fieldsOfBody, windowsOfBodies } from "../parts/bodyFields.ts"
import { checkingRoom } from "../parts/checks.ts"
import { announcing } from "../parts/due.ts"
import { addingTo } from "../parts/makeStream.ts"

/**
 * Changes when a waiting message is due; when that is now, moves it into the log at once. The deduplication window it has opened ends its span
 * after the new time.
 *
 * KEYS: waiting, bodies of the channel (of no group), log, window key, what this call was told. ARGV: events channel, member, id, `+` and a
 * delay in ms or a time in ms, what the window key is the key of, ms for which it is kept what the call was told.
 * Reply: 1 when it still waited, else 0; the key of its window, when that is another: nothing was done.
 *
 * Types and room are checked first. The first write passes when memory is full and lets the rest pass: what waits is only moved.
 */
export const reschedule: Script = {
  name: "reschedule",
  lua: `
local waiting, bodies, log, window, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local events, member, id, at, named, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
${fieldsOfBody}
${windowsOfBodies}
${addingTo}
${announcing}
${checkingRoom}
local before = redis.call('GET', told)
if before then return tonumber(before) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local body = redis.call('HGET', bodies, id)
if not body or not redis.call('ZSCORE', waiting, member) then return 0 end
local span, call, key = windowOf(body)
if key and key ~= named then return key end
local due = string.sub(at, 1, 1) == '+' and now + tonumber(string.sub(at, 2)) or tonumber(at)
local problem = wrongType(window, 'string') or due <= now and noRoom(log, 1, #body)
if problem then return problem end
if due > now then
  local first = firstDue(waiting)
  redis.call('ZREM', waiting, '')
  redis.call('ZADD', waiting, 'XX', due, member)
  announceDue(events, first, due, now)
else
  due = now
  local fields = fieldsOf(id, body, 0)
  if not fields then return 0 end
  redis.call('ZREM', waiting, '')
  add(redis.call, log, unpack(fields))
  redis.call('ZREM', waiting, member)
  redis.call('HDEL', bodies, id)
end
if key and ownsWindow(window, call) then redis.call('PEXPIRE', window, string.format('%.0f', due - now + span)) end
redis.call('SET', told, 1, 'PX', kept)
return 1
`
}
