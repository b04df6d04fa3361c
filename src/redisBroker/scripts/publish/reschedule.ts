import { idempotentScript } from "../../script.ts"
import { bodyFields } from "../parts/bodyFields.ts"
import { noRoom } from "../parts/preconditions.ts"
import { clock, dueAt, wakeFor } from "../parts/time.ts"
import { windowOf } from "../parts/window.ts"
import { add, makeStream } from "../parts/makeStream.ts"

/**
 * Changes when a waiting message is due; when that is now, moves it into the log at once. The deduplication window it has opened then ends its
 * span after the new time.
 *
 * KEYS: waiting, bodies of the channel (of no group), log, window key, answer of this call.
 * ARGV: events channel, member of waiting, id, due time (see `dueAt`), name of the window key, ms for which the answer is kept.
 * Reply: 1 when it still waited, else 0; the name of its window key, when that is another: nothing was done.
 *
 * Writes: types and room are checked first. The first write passes when memory is full, and lets the rest pass: the message is only moved.
 */
export const reschedule = idempotentScript("reschedule")`
local waiting, bodies, log, window, answer = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local events, member, id, at, named, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
${bodyFields}${windowOf}${makeStream}${add}${clock}${dueAt}${wakeFor}${noRoom}
local before = redis.call('GET', answer)
if before then return tonumber(before) end
local now = clock()
local body = redis.call('HGET', bodies, id)
if not body or not redis.call('ZSCORE', waiting, member) then return 0 end
local span, call, key = windowOf(body)
if key and key ~= named then return key end
local due = dueAt(at, now)
local problem = wrongType(window, 'string') or due <= now and noRoom(log, 1, #body)
if problem then return problem end
if due > now then
  local first = firstTime(waiting)
  redis.call('ZREM', waiting, '')
  redis.call('ZADD', waiting, 'XX', due, member)
  wakeFor(due, first, now)
else
  if not isBody(body) then return 0 end
  redis.call('ZREM', waiting, '')
  add(redis.call, log, fieldsOf(id, body, 0))
  redis.call('ZREM', waiting, member)
  redis.call('HDEL', bodies, id)
end
if key and ownsWindow(window, call) then redis.call('PEXPIRE', window, string.format('%.0f', due - now + span)) end
redis.call('SET', answer, 1, 'PX', kept)
return 1
`
