import { idempotentScript } from "../../script.ts"
import { gateConsumer, line, orderingKeyOf } from "../parts/gate.ts"
import { positions } from "../parts/positions.ts"

/**
 * Enters deliveries with ordering keys into the gate of their group and channel, in the order of their stream: the first of each key may run, the
 * others wait (see `parts/gate.ts`).
 *
 * KEYS: the stream, busy, lines, behind, reached of the group and channel, taken of the group.
 * ARGV: group, consumer, kind (`l` for a log, `r` for a retry stream), the stamp that the consumer knew before it read (""; none), first
 * and last position of the read (first "": claimed or recovered ones, which are no interval of the stream), 1 to enter what others have
 * read in between and not entered (else 0), number of deliveries with a key, their positions, their keys.
 * Reply: {stamp, outcome, numbers of those that wait, numbers of those that another consumer has}. The outcome is 0 (done), 1 (another
 * consumer has read messages in between and not entered them: call again soon) or 2 (a part of those is entered: call again).
 *
 * What the consumer has read joins on to what was entered before, or what lies between is entered first, without making anybody its owner.
 * So the gate is filled in the order of the stream, whatever the order of the calls.
 *
 * The stamp of a consumer changes when something is taken over from it (`takeOver`). While it is the one from before the read, everything
 * that was read is still this consumer's. After a change of the stamp, or if a delivery may have been entered already, each one is checked.
 *
 * Without a position in `reached` the gate is new, or was deleted: everything pending is entered in order.
 *
 * A second run finds the same messages waiting, and the others its own. A call enters at most 1,000 messages, or about 1 MiB, of others.
 *
 * Writes: reads of all keys come first, which fail on a wrong type. HDEL passes when memory is full, and lets the rest pass: what cannot be
 * entered would never be acknowledged.
 */
export const enter = idempotentScript("enter")`
local stream, busy, lines, behind, reached, taken = unpack(KEYS)
local group, consumer, kind, known, first, last, isUrgent = unpack(ARGV, 1, 7)
local args, size = ARGV, tonumber(ARGV[8])
${positions}${line}${orderingKeyOf}
local stamp, frontier = redis.call('HGET', taken, consumer), redis.call('HGET', reached, kind)
local active = size > 0 and redis.call('SMISMEMBER', busy, unpack(args, 9 + size, 8 + 2 * size)) or {}
local isJoined = first ~= '' and stamp and stamp == known and frontier and isLower(frontier, first)
if isJoined and #redis.call('XPENDING', stream, group, '(' .. frontier, '(' .. first, 1) > 0 then
  if isUrgent ~= '1' then return {stamp, 1} end
  isJoined = false
end
redis.call('HLEN', behind)
redis.call('HDEL', lines, '')
local waiting, moved = {}, {'XCLAIM', stream, group, '${gateConsumer}', 0}
local function toGate(i)
  waiting[#waiting + 1] = i
  moved[#moved + 1] = args[8 + i]
end
local function move()
  if #waiting == 0 then return end
  moved[#moved + 1] = 'JUSTID'
  redis.call(unpack(moved))
end
if isJoined then
  local isIdle = true
  for i = 1, size do
    if active[i] == 1 then
      isIdle = false
      break
    end
  end
  if not isIdle or size > 0 and redis.call('SADD', busy, unpack(args, 9 + size, 8 + 2 * size)) < size then
    local isTaken, new = {}, {'SADD', busy}
    for i = 1, size do
      local key = args[8 + size + i]
      if active[i] == 1 or isTaken[key] then
        putBehind(key, kind .. args[8 + i])
        toGate(i)
      else
        isTaken[key] = true
        new[#new + 1] = key
      end
    end
    if not isIdle and #new > 2 then redis.call(unpack(new)) end
  end
  redis.call('HSET', reached, kind, last)
  move()
  return {stamp, 0, waiting}
end
if not stamp then
  local time = redis.call('TIME')
  stamp = time[1] .. string.sub('00000' .. time[2], -6)
  redis.call('HSET', taken, consumer, stamp)
end
if not frontier or isLower(frontier, last) then
  if not frontier and redis.call('EXISTS', reached) == 0 then redis.call('DEL', busy, lines, behind) end
  local bytes, between = 0, redis.call('XPENDING', stream, group, frontier and '(' .. frontier or '-', last, 1000)
  for i, lease in ipairs(between) do
    local position, owner = lease[1], lease[2]
    local entry = redis.call('XRANGE', stream, position, position)[1]
    local key, isHead = orderingKeyOf(entry)
    if isHead then key = nil end
    if key and redis.call('SADD', busy, key) == 0 then
      putBehind(key, kind .. position)
    elseif key and owner == '${gateConsumer}' then
      -- The gate was deleted. Its lease has expired, so that it is taken over.
      redis.call('XCLAIM', stream, group, consumer, 0, position, 'IDLE', 2592000000, 'RETRYCOUNT', 0, 'JUSTID')
    end
    for _, field in ipairs(entry and entry[2] or {}) do bytes = bytes + #field end
    if i == 1000 or bytes >= 1048576 and position ~= last then
      redis.call('HSET', reached, kind, position)
      return {stamp, 2}
    end
  end
  redis.call('HSET', reached, kind, last)
end
local gone = {}
for i = 1, size do
  local position, key = args[8 + i], args[8 + size + i]
  local lease = redis.call('XPENDING', stream, group, position, position, 1)[1]
  if not lease or lease[2] ~= consumer then gone[#gone + 1] = i
  elseif isWaiting(key, kind .. position) then toGate(i)
  else redis.call('SADD', busy, key) end
end
move()
return {stamp, 0, waiting, gone}
`
