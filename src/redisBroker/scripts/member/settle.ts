import { script } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"
import { counters, letterCounter } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { free } from "../parts/gate.ts"
import { add } from "../parts/makeStream.ts"
import { tokenOf } from "../parts/onceKeys.ts"
import { noRoom } from "../parts/preconditions.ts"
import { openRetries } from "../parts/retryStream.ts"
import { clock, wakeFor } from "../parts/time.ts"

/**
 * Settles deliveries of one stream, each only while this consumer holds this very hand-out (owner and delivery count), and counts them.
 *
 * KEYS: the stream, retry stream, waiting, bodies of the group and channel, dead, retries of the group, meta, counts, trials of the group
 * and channel; where deliveries have idempotency keys: once, older once; where ordering keys count: log, retry stream, busy, lines and behind
 * of the group and channel.
 * ARGV: group, consumer, channel, events channel, 1 where ordering keys count (else 0), then for each delivery: position, delivery count
 * (0: a renewal found its entry gone), action, value, body, idempotency key, token (both "" where it has none), ordering key ("" where it has
 * none).
 * Reply: the refused positions; where ordering keys count {these, messages handed over, number of those that were gone}, as `leave` has them.
 *
 * The actions: `ack` (value `u`: a duplicate); `ready` (again at once); `wait` (again after a delay: value is the ms, a line feed and the
 * member of waiting), these two with a `+` for a retry after a failure; `dead` (value: group, channel and reason). An idempotency key that
 * still has this token is freed, whatever becomes of the delivery. An ordering key is freed by `ack` and `dead`, and its next message is
 * handed over; for the others it stays closed, as the body says.
 *
 * Writes: types and room for what these actions touch are checked first. XACK is the first write of each delivery: it passes when memory is
 * full, and lets the rest pass. A crash between two deliveries leaves each untouched or wholly settled.
 */
export const settle = script("settle")`
local stream, retry, waiting, bodies, dead, retries, meta, counts, trials = unpack(KEYS)
local group, consumer, channel, events, isOrdered = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local lastOnce = isOrdered and #KEYS - 5 or #KEYS
local log, _, busy, lines, behind = unpack(KEYS, #KEYS - 4)
local account = group .. '\\n' .. channel
${openRetries}${add}${clock}${wakeFor}${noRoom}${count}${tokenOf}${free}
local types = {[stream] = 'stream', [counts] = 'hash', [trials] = 'hash'}
for i = 10, lastOnce do types[KEYS[i]] = 'hash' end
local wanted, bytes, waits = {}, 0, false
for i = 8, #ARGV, 8 do
  bytes = bytes + #ARGV[i + 2]
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
local problem = isOrdered and gateProblem()
if problem then return problem end
local now, first, earliest = waits and clock(), waits and firstTime(waiting), nil
local refused, isOpen = {}, false
local tried = found[trials] ~= 'none' and (stream == retry and 'r' or 'l')
local settled, acked, duplicates, failed, retried, buried, crashed = 0, 0, 0, 0, 0, 0, 0
for i = 6, #ARGV, 8 do
  local position, action, value, body = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  -- Of an entry that is gone this consumer alone has the message.
  local lease = ARGV[i + 1] == '0' and {position, consumer, 0, 0} or redis.call('XPENDING', stream, group, position, position, 1)[1]
  if not lease or lease[2] ~= consumer or lease[4] ~= tonumber(ARGV[i + 1]) then
    refused[#refused + 1] = position
  else
    redis.call('XACK', stream, group, position)
    if tried then redis.call('HDEL', trials, tried .. position) end
    settled = settled + 1
    crashed = crashed + math.max(0, lease[4] - 1)
    if isOrdered and ARGV[i + 7] ~= '' and (action == 'ack' or action == 'dead') then free(ARGV[i + 7]) end
    if action == 'ack' then
      acked = acked + 1
      if value == 'u' then duplicates = duplicates + 1 end
    elseif action == 'dead' then
      buried = buried + 1
      local reason = string.match(value, '^.*\\n(.*)$')
      if reason == 'exhausted' or reason == 'term' then failed = failed + 1 end
      add(redis.call, dead, 'k', value, 'b', body)
      count('${letterCounter}', value, 1)
    else
      if string.sub(action, -1) == '+' then
        action = string.sub(action, 1, -2)
        failed, retried = failed + 1, retried + 1
      end
      if not isOpen then openRetries(found[retry] ~= 'none', retry, retries, group, channel) end
      isOpen = true
      if action == 'ready' then
        redis.call('XADD', retry, '*', 'b', body)
      else
        local delay, member = string.match(value, '^(%S+)\\n(.*)$')
        local due = now + delay
        redis.call('HSET', bodies, string.sub(member, #account + 2), body)
        redis.call('ZADD', waiting, due, member)
        if not earliest or due < earliest then earliest = due end
      end
    end
  end
  local name, token = ARGV[i + 5], ARGV[i + 6]
  for j = 10, name ~= '' and lastOnce or 0 do
    if tokenOf(redis.call('HGET', KEYS[j], name)) == token then redis.call('HDEL', KEYS[j], name) end
  end
end
if stream == retry then count('${counters.settledRetries}', account, settled) end
count('${counters.acked}', account, acked)
count('${counters.duplicates}', account, duplicates)
count('${counters.failed}', account, failed)
count('${counters.retried}', account, retried)
count('${counters.buried}', account, buried)
count('${counters.crashed}', account, crashed)
if buried > 0 then redis.call('PUBLISH', events, '${signalEvents.letter}') end
wakeFor(earliest, first, now)
if isOrdered then return {refused, handedOver, vanished} end
return refused
`
