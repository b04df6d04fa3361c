import type { Script } from "../../../Redis.ts"
import { fieldsOfBody } from "../parts/bodyFields.ts"
import { checkingRoom } from "../parts/checks.ts"
import { announcing } from "../parts/due.ts"

/**
 * Lets messages of one channel wait for their time, or adds those whose time has come to the log. A message that is there already
 * is not added: inside its deduplication window, or while it waits. A repetition of the call does nothing, and gets the same reply.
 *
 * KEYS: waiting, bodies of the channel (of no group), log, what this call was told, window keys. ARGV: events channel, member of the channel without
 * an id, name of this call, ms for which it is kept what it was told, then for each message: id, `+` and a delay in ms or a time in ms, body,
 * 1 to replace one that waits, window in ms (0: none), index of its window key in KEYS.
 * Reply: {"unknown"} when the channel has no log; else for each message {"scheduled", due time}, {"stored", position}, {"duplicate", what the
 * window key holds} (see `append`; `@` instead of a position: it was scheduled). What the call was told is the same as JSON.
 *
 * Types and room are checked first. The first write is one that can be refused when memory is full; then nothing has been done.
 */
export const schedule: Script = {
  name: "schedule",
  lua: `
local waiting, bodies, log, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, prefix, call, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local windows, total = KEYS, #ARGV
${fieldsOfBody}
${announcing}
${checkingRoom}
for i, expected in ipairs({'zset', 'hash', 'stream'}) do
  if i == 3 and redis.call('EXISTS', log) == 0 then return {'unknown'} end
  local problem = wrongType(windows[i], expected)
  if problem then return problem end
end
for i = 4, #KEYS do
  local problem = wrongType(windows[i], 'string')
  if problem then return problem end
end
local before = redis.call('GET', told)
if before then return cjson.decode(before) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function dueAt(at)
  return math.max(now, string.sub(at, 1, 1) == '+' and now + tonumber(string.sub(at, 2)) or tonumber(at))
end
local wanted, bytes = 0, 0
for i = 5, total, 6 do
  if dueAt(ARGV[i + 1]) <= now then
    wanted = wanted + 1
    bytes = bytes + #ARGV[i + 2]
  end
end
local problem = wanted > 0 and noRoom(log, wanted, bytes)
if problem then return problem end
local first = firstDue(waiting)
local replies, earliest = {}, nil
for i = 5, total, 6 do
  local id, at, body, replace, window = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1', tonumber(ARGV[i + 4])
  local key = window > 0 and windows[tonumber(ARGV[i + 5])]
  local due = dueAt(at)
  local waits = redis.call('HEXISTS', bodies, id) == 1
  local opened = key and redis.call('GET', key)
  local reply
  if waits and not replace then
    reply = {'duplicate', '@ - ' .. id}
  elseif opened and not waits then
    reply = {'duplicate', opened}
  elseif due <= now and not waits then
    local position = redis.call('XADD', log, '*', unpack(fieldsOf(id, body, 0)))
    if key then redis.call('SET', key, position .. ' ' .. call .. ' ' .. id, 'PX', window) end
    reply = {'stored', position}
  else
    redis.call('HSET', bodies, id, body)
    redis.call('ZADD', waiting, due, prefix .. id)
    if key then redis.call('SET', key, '@ ' .. call .. ' ' .. id, 'PX', due - now + window) end
    if not earliest or due < earliest then earliest = due end
    reply = {'scheduled', string.format('%.0f', due)}
  end
  replies[#replies + 1] = reply
end
announceDue(events, first, earliest, now)
redis.call('SET', told, cjson.encode(replies), 'PX', kept)
return replies
`
}
