import { script } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"
import { counters } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { free, lost } from "../parts/gate.ts"
import { add, makeStream } from "../parts/makeStream.ts"
import { onceKeys } from "../parts/onceKeys.ts"
import { positions } from "../parts/positions.ts"
import { noRoom } from "../parts/preconditions.ts"
import { scheduleMessage } from "../parts/scheduleMessage.ts"
import { clock, dueAt, wakeFor } from "../parts/time.ts"

/**
 * Applies the messages and writes of a transaction as a whole, behind a fence.
 *
 * KEYS: the fence's four (below), then the keys that the operations name by their index.
 * ARGV: the fence's nine, events channel, then for each operation: name, index of its key in KEYS, number of arguments, arguments.
 * Reply: {"done"}, with `free` {"done", messages handed over, number of those that were gone}, as `leave` has them; {"already"}, by which consumer the fence does not tell; {"lost"}; {"behind"}; {"unknown", log} when a log has to be
 * created first; {"type", key, found, expected}; {"number", key}; {"full", key} when a stream has no position left. Nothing was written
 * but for "done".
 *
 * The fence `ack` has the KEYS stream, once, older once, counts, and the ARGV "ack", group, position, idempotency key, token, channel, how
 * often the delivery was taken over from a lost consumer (-1: a renewal found its entry gone), 1 for a retry stream (else 0), ms for which
 * the key stays done. It passes while the key has this token; it acknowledges the delivery, counts it, and records the key as done.
 *
 * The fence `relay` has the KEYS relayed and three times what has arrived from this shard, and the ARGV "relay", shard, position, name
 * of the entry, 1 when it was still in the outbox a moment ago (else ""), "", 0, 0, 0. It passes when this entry of the shard's outbox
 * has not arrived here yet, and records it. Entries are told apart by name, not by position: after a failover to a clock that is behind,
 * new entries have lower positions. Only the last 1,000 names are kept. An entry that is none of them, has a position not above the last one,
 * and was not seen in the outbox may have arrived long ago: {"behind"} asks the caller to look there.
 *
 * The operations: `publish` (a log): window in ms, index of the window key (both 0: no window), call and id, fields. `schedule` (a log):
 * window in ms, index of the window key, id, indexes of waiting and of the channel's bodies, member of waiting, due time (see `dueAt`), 1 to
 * replace a waiting message, body, call. `ack` (a stream; only behind the fence `ack`, and before all others): of a further delivery that is
 * acknowledged, the position, idempotency key, token, channel, and the last two of the fence before its ms. `outbox`: fields. `tried`: the field of the delivery in its trials, which is removed. `free` (busy of the group and channel): consumer,
 * ordering key, indexes of taken of the group, log, retry stream, lines and behind; it comes first, and frees nothing for a delivery that was
 * not pending any more. `set`: value. `hset`: fields and values. `incrby`: number. `del`.
 *
 * Writes: every check that a write could fail is made before the first one. That is XACK, or for a relay ZREM. They pass when memory is
 * full, and let the rest pass: a relayed message is stored already.
 */
export const commit = script("commit")`
local keys, args = KEYS, ARGV
local kind, fence, position, name, token, channel, takeovers, isRetry, keep, events = unpack(args, 1, 10)
local counts = keys[4]
local taken, log, retry, busy, lines, behind, group, consumer
${makeStream}${add}${clock}${dueAt}${wakeFor}${noRoom}${count}${onceKeys}${scheduleMessage}${free}${lost}
local function mismatch(key, found, expected)
  return found ~= 'none' and found ~= expected and {'type', key, found, expected} or nil
end
local head, isBehind
for i, expected in ipairs(kind == 'ack' and {'stream', 'hash', 'hash', 'hash'} or {'hash', 'zset'}) do
  local problem = mismatch(keys[i], redis.call('TYPE', keys[i]).ok, expected)
  if problem then return problem end
end
if kind == 'ack' then
  local found = redis.call('HMGET', keys[2], '', name)
  head = found[1]
  local value = found[2] or redis.call('HGET', keys[3], name)
  if isDone(value) then return {'already'} end
  if tokenOf(value) ~= token then return {'lost'} end
else
${positions}
  if redis.call('ZSCORE', keys[2], name) then return {'already'} end
  local last = redis.call('HGET', keys[1], fence)
  isBehind = last and not isLower(last, position)
  if isBehind and token == '' then return {'behind'} end
end
local operations, at, bytes = {}, 11, 0
for i = 11, #args do bytes = bytes + #args[i] end
while at <= #args do
  local size = tonumber(args[at + 2])
  operations[#operations + 1] = {args[at], keys[tonumber(args[at + 1])], unpack(args, at + 3, at + 2 + size)}
  at = at + 3 + size
end
local needs = {ack = 'stream', free = 'set', publish = 'stream', schedule = 'stream', outbox = 'stream', tried = 'hash', hset = 'hash', incrby = 'string'}
local types, numbers, entries, first, earliest = {}, {}, {}, nil, nil
local loser, acked
local now = clock()
-- What each write will find is played through: the operations before it may have changed the type of its key, or its number.
for _, operation in ipairs(operations) do
  local verb, key, isAdded = operation[1], operation[2], false
  local found = types[key]
  if not found then
    found = redis.call('TYPE', key).ok
    if verb == 'incrby' and found == 'string' then numbers[key] = redis.call('GET', key) end
  end
  local expected = needs[verb]
  if (verb == 'publish' or verb == 'schedule') and found == 'none' then return {'unknown', key} end
  local problem = expected and mismatch(key, found, expected)
  if problem then return problem end
  if verb == 'free' then
    group, consumer, busy = fence, operation[3], key
    local gate = {}
    for j = 5, 9 do gate[j - 4] = keys[tonumber(operation[j])] end
    taken, log, retry, lines, behind = unpack(gate)
    for j, expected in ipairs({'hash', 'stream', 'stream', 'hash', 'hash'}) do
      problem = mismatch(gate[j], redis.call('TYPE', gate[j]).ok, expected)
      if problem then return problem end
    end
    local lease = redis.call('XPENDING', keys[1], fence, position, position, 1)[1]
    loser = lease and lease[2] ~= consumer and lease[2]
  end
  if verb == 'ack' then
    local value = redis.call('HGET', keys[2], operation[4]) or redis.call('HGET', keys[3], operation[4])
    if isDone(value) or tokenOf(value) ~= operation[5] then return {'lost'} end
  elseif verb == 'schedule' then
    local waiting, bodies, due = keys[tonumber(operation[6])], keys[tonumber(operation[7])], dueAt(operation[9], now)
    problem = mismatch(waiting, redis.call('TYPE', waiting).ok, 'zset') or mismatch(bodies, redis.call('TYPE', bodies).ok, 'hash')
    if problem then return problem end
    isAdded = due <= now
    if not isAdded then first = first or firstTime(waiting) or math.huge end
  elseif verb == 'publish' or verb == 'outbox' then
    isAdded = true
  elseif verb == 'incrby' then
    if found == 'none' then numbers[key] = '0' end
    if not numbers[key] then numbers[key] = redis.call('GET', key) end
    if #numbers[key] > 19 or not (numbers[key] == '0' or string.find(numbers[key], '^%-?[1-9]%d*$')) then return {'number', key} end
    if #string.gsub(numbers[key], '-', '') > 18 then return {'number', key} end
  elseif verb == 'set' then
    numbers[key] = operation[3]
  end
  if isAdded then entries[key] = (entries[key] or 0) + 1 end
  types[key] = verb == 'del' and 'none' or verb == 'set' and 'string' or expected
end
for key, wanted in pairs(entries) do
  if roomIn(key, bytes) < wanted then return {'full', key} end
end
local function acknowledge(stream, position, channel, takeovers, isRetry)
  local acked = redis.call('XACK', stream, fence, position)
  if takeovers == '-1' then acked, takeovers = 1, 0 end
  local account = fence .. '\\n' .. channel
  count('${counters.acked}', account, acked)
  count('${counters.crashed}', account, acked * takeovers)
  count('${counters.settledRetries}', account, acked * isRetry)
  return acked
end
if kind == 'ack' then
  acked = acknowledge(keys[1], position, channel, takeovers, isRetry)
  local started, last = spanOf(head, now)
  redis.call('HSET', keys[2], '', headOf(started, math.max(last, now + keep)), name, millis(now + keep))
else
  redis.call('ZREM', keys[2], '')
  local newest = redis.call('ZRANGE', keys[2], -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', keys[2], (newest or 0) + 1, name)
  if redis.call('ZCARD', keys[2]) > 1000 then redis.call('ZREM', keys[2], redis.call('ZRANGE', keys[2], 0, 0)[1]) end
  if not isBehind then redis.call('HSET', keys[1], fence, position) end
end
local relays = false
for _, operation in ipairs(operations) do
  local verb, key = operation[1], operation[2]
  if verb == 'publish' then
    local window, seen = tonumber(operation[3]), keys[tonumber(operation[4])]
    if window == 0 or redis.call('EXISTS', seen) == 0 then
      local added = redis.call('XADD', key, '*', unpack(operation, 6))
      if window > 0 then openWindow(seen, added, operation[5], window) end
    end
  elseif verb == 'schedule' then
    local due = dueAt(operation[9], now)
    local outcome = scheduleMessage(key, keys[tonumber(operation[6])], keys[tonumber(operation[7])], {
      window = tonumber(operation[3]), key = keys[tonumber(operation[4])], id = operation[5], member = operation[8], due = due,
      replace = operation[10] == '1', body = operation[11], call = operation[12]
    }, now)
    if outcome == 'scheduled' and (not earliest or due < earliest) then earliest = due end
  elseif verb == 'ack' then
    acknowledge(key, operation[3], operation[6], operation[7], operation[8])
    redis.call('HSET', keys[2], operation[4], millis(now + keep))
  elseif verb == 'tried' then
    redis.call('HDEL', key, operation[3])
  elseif verb == 'free' then
    if loser then lost(loser) end
    if acked > 0 then free(operation[4]) end
  elseif verb == 'outbox' then
    relays = true
    add(redis.call, key, unpack(operation, 3))
  else
    redis.call(verb, key, unpack(operation, 3))
  end
end
if relays then redis.call('PUBLISH', events, '${signalEvents.outbox}') end
wakeFor(earliest, first, now)
if busy then return {'done', handedOver, vanished} end
return {'done'}
`
