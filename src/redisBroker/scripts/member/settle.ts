import type { Script } from "../../../Redis.ts"
import { checkingRoom } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"
import { announcing } from "../parts/due.ts"
import { addingTo } from "../parts/makeStream.ts"
import { versioning } from "../parts/registryVersion.ts"

/**
 * Settles deliveries of one stream, each only while this consumer holds this very hand-out (owner and delivery count).
 *
 * KEYS: the stream, retry stream, waiting, bodies of the group and channel, dead, retries of the group, meta, counts, trials of the group and channel;
 * where deliveries have marks: marks, old marks. ARGV: group, consumer, channel, events channel, then for each delivery: position, delivery count (0: a renewal found its entry gone), action, value,
 * description, payload, mark, token (both "" where it has none). The actions: `ack` (`value` "u": a duplicate); `ready` (again at
 * once); `wait` (again after `value` ms); these two with a `+` when it is a retry after a failure; `dead` (`value`: group, channel and reason). A mark that still has its token is removed, whatever becomes of the delivery.
 * Reply: the positions that were refused. What was settled is counted, and so is how often each was taken over from a lost consumer.
 *
 * There is no rollback: the types of what these actions touch, and whether there is a position left, are checked before the first write, and XACK is the first write of each, because it passes when
 * memory is full and lets the rest pass. A crash between two deliveries leaves each either untouched or wholly done.
 */
export const settle: Script = {
  name: "settle",
  lua: `
local stream, retry, waiting, bodies, dead, retries, meta, counts, trials = unpack(KEYS)
local group, consumer, channel, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local account = group .. '\\n' .. channel
${addingTo}
${announcing}
${checkingRoom}
${counting}
${versioning}
local types = {[stream] = 'stream', [counts] = 'hash', [trials] = 'hash'}
for i = 10, #KEYS do types[KEYS[i]] = 'hash' end
local wanted, bytes, waits = {}, 0, false
for i = 7, #ARGV, 8 do
  bytes = bytes + #ARGV[i + 3]
  local action = ARGV[i]
  local target = action == 'dead' and dead or string.sub(action, 1, 5) == 'ready' and retry
  if target then wanted[target] = (wanted[target] or 0) + 1 end
  waits = waits or string.sub(action, 1, 4) == 'wait'
end
if wanted[retry] or waits then types[retry], types[retries], types[meta] = 'stream', 'set', 'hash' end
if waits then types[waiting], types[bodies] = 'zset', 'hash' end
if wanted[dead] then types[dead] = 'stream' end
local found = {}
for key, expected in pairs(types) do
  local problem
  if wanted[key] then problem, found[key] = noRoom(key, wanted[key], bytes)
  else problem, found[key] = wrongType(key, expected) end
  if problem then return problem end
end
local now, first
if waits then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  first = firstDue(waiting)
end
local refused, earliest, back, died = {}, nil, false, false
local tried = found[trials] ~= 'none' and (stream == retry and 'r' or 'l')
local settled, acked, duplicates, failed, retried, buried, crashed = 0, 0, 0, 0, 0, 0, 0
for i = 5, #ARGV, 8 do
  local position, action, value, description, payload = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  -- Of an entry that is gone this consumer alone has the message.
  local lease = ARGV[i + 1] == '0' and {position, consumer, 0, 0} or redis.call('XPENDING', stream, group, position, position, 1)[1]
  if not lease or lease[2] ~= consumer or lease[4] ~= tonumber(ARGV[i + 1]) then
    refused[#refused + 1] = position
  else
    redis.call('XACK', stream, group, position)
    if tried then redis.call('HDEL', trials, tried .. position) end
    settled = settled + 1
    crashed = crashed + math.max(0, lease[4] - 1)
    if action == 'ack' then
      acked = acked + 1
      if value == 'u' then duplicates = duplicates + 1 end
    elseif action == 'dead' then
      died = true
      buried = buried + 1
      local reason = string.match(value, '^.*\\n(.*)$')
      if reason == 'exhausted' or reason == 'term' then failed = failed + 1 end
      add(redis.call, dead, 'k', value, 'm', description, 'p', payload)
      count('d', value, 1)
    else
      if string.sub(action, -1) == '+' then
        action = string.sub(action, 1, -2)
        failed, retried = failed + 1, retried + 1
      end
      if not back then
        back = true
        if found[retry] == 'none' then
          makeStream(retry, group)
          -- Of one that was deleted.
          redis.call('HDEL', counts, 'z\\n' .. account)
        end
        if redis.call('SADD', retries, channel) == 1 then
          newVersion()
          redis.call('PUBLISH', events, 'retry\\n' .. group .. '\\n' .. channel)
        end
      end
      if action == 'ready' then
        redis.call('XADD', retry, '*', 'm', description, 'p', payload)
      else
        local separator = string.find(value, '\\n', 1, true)
        local due, member = now + tonumber(string.sub(value, 1, separator - 1)), string.sub(value, separator + 1)
        redis.call('HSET', bodies, string.sub(member, #group + #channel + 3), description .. '\\n' .. payload)
        redis.call('ZADD', waiting, due, member)
        if not earliest or due < earliest then earliest = due end
      end
    end
  end
  local mark, token = ARGV[i + 6], ARGV[i + 7]
  for j = 10, mark ~= '' and 11 or 0 do
    local value = redis.call('HGET', KEYS[j], mark)
    if value and string.sub(value, 15) == token then redis.call('HDEL', KEYS[j], mark) end
  end
end
if stream == retry then count('z', account, settled) end
count('a', account, acked)
count('u', account, duplicates)
count('f', account, failed)
count('r', account, retried)
count('b', account, buried)
count('c', account, crashed)
if died then redis.call('PUBLISH', events, 'letter') end
announceDue(events, first, earliest, now)
return refused
`
}
