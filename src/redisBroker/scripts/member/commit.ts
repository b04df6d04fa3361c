import type { Script } from "../../../Redis.ts"
import { fieldsOfBody } from "../parts/bodyFields.ts"
import { checkingRoom } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"
import { announcing } from "../parts/due.ts"
import { addingTo } from "../parts/makeStream.ts"
import { marking } from "../parts/marking.ts"

/**
 * Applies messages and writes as a whole, behind a fence.
 *
 * KEYS[1] to KEYS[4] and the first nine ARGV are the fence. `ack`: stream, marks, old marks, counts; "ack", group, position, mark,
 * token, channel, how often it was taken over from a lost consumer (-1: a renewal found its entry gone), 1 when it is of a retry stream (else 0), ms its key is remembered: it passes while the mark has this token, and acknowledges the delivery, counts it, and remembers its key as done.
 * `relay`: the hash of relayed positions, what has arrived from this shard (three times); "relay", shard, position, name of the entry, 1 when it was
 * still in the outbox a moment ago (else ""), "", 0, 0, 0: it passes when this entry of the shard's outbox has not arrived here yet, and
 * remembers it. It is told by its name, not by its position: after a failover to a clock that is behind new entries have lower positions.
 * Only the last 1,000 names are remembered. What comes later than that has a lower position than others that have arrived, and is not in the
 * outbox any more: {"behind"} asks the caller to look.
 *
 * ARGV[10]: events channel. Then operations: name, index of the key in KEYS, number of arguments, arguments.
 * `publish` (a log): window in ms, index of the window key (both 0: no window), name of the call and id, fields. `schedule` (a log): window in ms, index of the window key, id, indexes of waiting and of the channel's bodies, member of
 * waiting, `+` and a delay in ms or a time in ms, 1 to replace one that waits, body, name of the call; one whose time has come is added to the log.
 * `outbox`: fields. `tried`: the field of the delivery in its trials, to be forgotten. `set`: value. `hset`: fields and values. `incrby`: number. `del`.
 *
 * Reply: {"done"}, {"already"} (by whom the fence does not tell), {"lost"}, {"behind"}; {"unknown", log} when a log has to be created first;
 * {"type", key, found, expected}; {"number", key}; {"full", key} when a stream has no position left. Nothing was written but for "done".
 *
 * There is no rollback: what every write will find is played through before the first one. That is the XACK, which passes when
 * memory is full and lets the rest pass; of a relay it is a ZREM, which does so as well: what it brings is stored already.
 */
export const commit: Script = {
  name: "commit",
  lua: `
local keys, args = KEYS, ARGV
local kind, fence, position, mark, token, channel, crashed, again, keep, events = unpack(args, 1, 10)
local counts = keys[4]
${addingTo}
${announcing}
${checkingRoom}
${counting}
${marking}
${fieldsOfBody}
local head, isBehind
local function parse(text)
  local dash = string.find(text, '-', 1, true)
  return tonumber(string.sub(text, 1, dash - 1)), tonumber(string.sub(text, dash + 1))
end
if kind == 'ack' then
  for i, expected in ipairs({'stream', 'hash', 'hash', 'hash'}) do
    local found = redis.call('TYPE', keys[i]).ok
    if found ~= 'none' and found ~= expected then return {'type', keys[i], found, expected} end
  end
  local marks = redis.call('HMGET', keys[2], '', mark)
  head = marks[1]
  local value = marks[2] or redis.call('HGET', keys[3], mark)
  if isDone(value) then return {'already'} end
  if tokenOf(value) ~= token then return {'lost'} end
else
  for i, expected in ipairs({'hash', 'zset'}) do
    local found = redis.call('TYPE', keys[i]).ok
    if found ~= 'none' and found ~= expected then return {'type', keys[i], found, expected} end
  end
  if redis.call('ZSCORE', keys[2], mark) then return {'already'} end
  local last = redis.call('HGET', keys[1], fence)
  if last then
    local time, sequence = parse(last)
    local newTime, newSequence = parse(position)
    isBehind = newTime < time or (newTime == time and newSequence <= sequence)
    if isBehind and token == '' then return {'behind'} end
  end
end
local operations, at, bytes = {}, 11, 0
for i = 11, #args do bytes = bytes + #args[i] end
while at <= #args do
  local size = tonumber(args[at + 2])
  operations[#operations + 1] = {args[at], keys[tonumber(args[at + 1])], unpack(args, at + 3, at + 2 + size)}
  at = at + 3 + size
end
local needs = {publish = 'stream', schedule = 'stream', outbox = 'stream', tried = 'hash', hset = 'hash', incrby = 'string'}
local types, numbers, entries = {}, {}, {}
local now = clock()
for _, operation in ipairs(operations) do
  local name, key = operation[1], operation[2]
  local found = types[key]
  if not found then
    found = redis.call('TYPE', key).ok
    if name == 'incrby' and found == 'string' then numbers[key] = redis.call('GET', key) end
  end
  local expected = needs[name]
  if (name == 'publish' or name == 'schedule') and found == 'none' then return {'unknown', key} end
  if expected and found ~= 'none' and found ~= expected then return {'type', key, found, expected} end
  local at = name == 'schedule' and operation[9]
  if name == 'publish' or name == 'outbox' or at and (tonumber(at) or 0) <= (string.sub(at, 1, 1) == '+' and 0 or now) then
    entries[key] = (entries[key] or 0) + 1
  end
  if name == 'schedule' then
    for i, other in ipairs({'zset', 'hash'}) do
      local index = tonumber(operation[5 + i])
      local type = redis.call('TYPE', keys[index]).ok
      if type ~= 'none' and type ~= other then return {'type', keys[index], type, other} end
    end
  end
  if name == 'incrby' then
    if found == 'none' then numbers[key] = '0' end
    if not numbers[key] then numbers[key] = redis.call('GET', key) end
    if #numbers[key] > 19 or not (numbers[key] == '0' or string.find(numbers[key], '^%-?[1-9]%d*$')) then return {'number', key} end
    if #string.gsub(numbers[key], '-', '') > 18 then return {'number', key} end
  elseif name == 'set' then
    numbers[key] = operation[3]
  end
  types[key] = name == 'del' and 'none' or name == 'set' and 'string' or expected
end
for key, wanted in pairs(entries) do
  if roomIn(key, bytes) < wanted then return {'full', key} end
end
if kind == 'ack' then
  local acked = redis.call('XACK', keys[1], fence, position)
  if crashed == '-1' then acked, crashed = 1, 0 end
  local started, last = spanOf(head, now)
  redis.call('HSET', keys[2], '', headOf(started, math.max(last, now + keep)), mark, millis(now + keep))
  count('a', fence .. '\\n' .. channel, acked)
  count('c', fence .. '\\n' .. channel, acked * crashed)
  count('z', fence .. '\\n' .. channel, acked * again)
else
  -- It passes when memory is full and lets the rest pass.
  redis.call('ZREM', keys[2], '')
  local newest = redis.call('ZRANGE', keys[2], -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', keys[2], (newest or 0) + 1, mark)
  if redis.call('ZCARD', keys[2]) > 1000 then redis.call('ZREM', keys[2], redis.call('ZRANGE', keys[2], 0, 0)[1]) end
  if not isBehind then redis.call('HSET', keys[1], fence, position) end
end
local relay, earliest, first = false, nil, nil
for _, operation in ipairs(operations) do
  local name, key = operation[1], operation[2]
  if name == 'publish' then
    local window, seen = tonumber(operation[3]), keys[tonumber(operation[4])]
    if window == 0 or redis.call('EXISTS', seen) == 0 then
      local added = redis.call('XADD', key, '*', unpack(operation, 6))
      if window > 0 then redis.call('SET', seen, added .. ' ' .. operation[5], 'PX', window) end
    end
  elseif name == 'schedule' then
    local window, seen, id = tonumber(operation[3]), keys[tonumber(operation[4])], operation[5]
    local waiting, bodies, member, at = keys[tonumber(operation[6])], keys[tonumber(operation[7])], operation[8], operation[9]
    local due = string.sub(at, 1, 1) == '+' and now + tonumber(string.sub(at, 2)) or math.max(now, tonumber(at))
    local waits = redis.call('HEXISTS', bodies, id) == 1
    local isNew = not waits and (window == 0 or redis.call('EXISTS', seen) == 0)
    if isNew and due <= now then
      local added = redis.call('XADD', key, '*', unpack(fieldsOf(id, operation[11], 0)))
      if window > 0 then redis.call('SET', seen, added .. ' ' .. operation[12] .. ' ' .. id, 'PX', window) end
    elseif isNew or waits and operation[10] == '1' then
      first = first or firstDue(waiting) or math.huge
      redis.call('HSET', bodies, id, operation[11])
      redis.call('ZADD', waiting, due, member)
      if window > 0 then redis.call('SET', seen, '@ ' .. operation[12] .. ' ' .. id, 'PX', due - now + window) end
      if not earliest or due < earliest then earliest = due end
    end
  elseif name == 'tried' then
    redis.call('HDEL', key, operation[3])
  elseif name == 'outbox' then
    relay = true
    add(redis.call, key, unpack(operation, 3))
  else
    redis.call(name, key, unpack(operation, 3))
  end
end
if relay then redis.call('PUBLISH', events, 'outbox') end
announceDue(events, first, earliest, now)
return {'done'}
`
}
