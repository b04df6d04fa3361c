import { idempotentScript } from "../../script.ts"
import { noRoom } from "../parts/preconditions.ts"
import { scheduleMessage } from "../parts/scheduleMessage.ts"
import { clock, dueAt, wakeFor } from "../parts/time.ts"

/**
 * Lets messages of one channel wait until they are due, or adds those that are due to the log. A message that is there already is not
 * added: inside its deduplication window, or while it waits. A repetition of the call does nothing, and gets the same reply.
 *
 * KEYS: waiting, bodies of the channel (of no group), log, answer of this call, window keys.
 * ARGV: events channel, member of the channel without an id, name of this call, ms for which the answer is kept, then for each message: id,
 * due time (see `dueAt`), body, 1 to replace a waiting message, window in ms (0: none), index of its window key in KEYS.
 * Reply: {"unknown"} when the channel has no log; else for each message {"scheduled", due time}, {"stored", position}, or {"duplicate", value
 * of the window} (`@` for a position: it waits). The answer is the same as JSON.
 *
 * Writes: types and room are checked first. The first write can be refused when memory is full; then nothing has been done.
 */
export const schedule = idempotentScript("schedule")`
local waiting, bodies, log, answer = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, prefix, call, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local windows, total = KEYS, #ARGV
${clock}${dueAt}${wakeFor}${noRoom}${scheduleMessage}
for i, expected in ipairs({'zset', 'hash', 'stream'}) do
  if i == 3 and redis.call('EXISTS', log) == 0 then return {'unknown'} end
  local problem = wrongType(windows[i], expected)
  if problem then return problem end
end
for i = 4, #KEYS do
  local problem = wrongType(windows[i], 'string')
  if problem then return problem end
end
local before = redis.call('GET', answer)
if before then return cjson.decode(before) end
local now = clock()
local messages, wanted, bytes = {}, 0, 0
for i = 5, total, 6 do
  local message = {
    id = ARGV[i], member = prefix .. ARGV[i], due = dueAt(ARGV[i + 1], now), body = ARGV[i + 2], replace = ARGV[i + 3] == '1',
    window = tonumber(ARGV[i + 4]), key = windows[tonumber(ARGV[i + 5])], call = call
  }
  messages[#messages + 1] = message
  if message.due <= now then
    wanted = wanted + 1
    bytes = bytes + #message.body
  end
end
local problem = wanted > 0 and noRoom(log, wanted, bytes)
if problem then return problem end
local replies, first, earliest = {}, firstTime(waiting), nil
for i, message in ipairs(messages) do
  local outcome, value = scheduleMessage(log, waiting, bodies, message, now)
  if outcome == 'duplicate' then
    value = value and redis.call('GET', value) or '@ - ' .. message.id
  elseif outcome == 'scheduled' then
    value = string.format('%.0f', message.due)
    if not earliest or message.due < earliest then earliest = message.due end
  end
  replies[i] = {outcome, value}
end
wakeFor(earliest, first, now)
redis.call('SET', answer, cjson.encode(replies), 'PX', kept)
return replies
`
