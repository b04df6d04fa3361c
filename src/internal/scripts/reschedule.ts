import type { Script } from "../../Redis.ts"
import { fieldsOfBody } from "./parts/fields.ts"
import { addingTo } from "./parts/streams.ts"

/**
 * Changes when a waiting message is due; when that is now, moves it into the log at once.
 *
 * KEYS: waiting, bodies of the channel (of no group), log, window key. ARGV: events channel, member, id, `+` and a delay in ms or a time
 * in ms, ms after the due time until which its window lasts, if it has one.
 * Reply: 1 when it still waited, else 0.
 *
 * The XADD comes first: it is the write that can be refused, and then the message still waits.
 */
export const reschedule: Script = {
  name: "reschedule",
  lua: `
local waiting, bodies, log, window = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, member, id, at, span = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
${fieldsOfBody}
${addingTo}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local body = redis.call('HGET', bodies, id)
if not body or not redis.call('ZSCORE', waiting, member) then return 0 end
local due = string.sub(at, 1, 1) == '+' and now + tonumber(string.sub(at, 2)) or tonumber(at)
if due > now then
  local first = tonumber(redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2])
  redis.call('ZADD', waiting, 'XX', due, member)
  redis.call('PEXPIRE', window, due - now + span, 'GT')
  if due < first then redis.call('PUBLISH', events, 'due') end
  return 1
end
local fields = fieldsOf(id, body, 0)
if not fields then return 0 end
add(redis.call, log, unpack(fields))
redis.call('ZREM', waiting, member)
redis.call('HDEL', bodies, id)
redis.call('PEXPIRE', window, span, 'GT')
return 1
`
}
