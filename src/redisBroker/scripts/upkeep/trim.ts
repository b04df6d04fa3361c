import { idempotentScript } from "../../script.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { floorOf } from "../parts/positions.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Removes from the head of a stream the entries that every group has acknowledged, then those beyond the limits of the channel, and
 * records the floor of each group.
 *
 * KEYS: meta, stream, floors of each expected group.
 * ARGV: version the caller knows, grace in ms, maximal age in ms (0: none), minimal position ("": none), maximal length (-1: none), idle ms
 * after which an empty consumer is removed, channel, expected groups.
 * Reply: {removed entries (-1 when the version is another: a group or channel came meanwhile), 2 when more can be removed at once, 1 when
 * more can be after the grace, 3 when age alone will let more be removed, else 0}.
 *
 * An expected group that is not on the stream yet has acknowledged nothing. No entry younger than the grace is removed for being
 * acknowledged: a publish whose reply was lost is searched in the tail.
 *
 * A call ends after 5,000 entries or about 1 MiB. How much a step may remove follows from the size of the oldest entry: XTRIM is told
 * entries and removes whole nodes, which hold 100 entries or 4 KiB (stream-node-max-entries, stream-node-max-bytes); a large entry has a node
 * to itself.
 *
 * Writes: HDEL comes first. It passes when memory is full, and lets the rest pass: this script frees memory.
 */
export const trim = idempotentScript("trim")`
local meta, stream = KEYS[1], KEYS[2]
local version, grace, age, least, longest, idle, channel = unpack(ARGV, 1, 7)
if (redis.call('HGET', meta, 'v') or '0') ~= version then return {-1, 1} end
${wrongType}
local problem, found = wrongType(stream, 'stream')
if found == 'none' then return {0, 0} end
for i = 3, #KEYS do problem = problem or wrongType(KEYS[i], 'hash') end
if problem then return problem end
${clock}${floorOf}${sizeOf}
local floorsOf, cut = {}, nil
redis.call('HDEL', meta, '')
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local name, floor, lowest = info[2], floorOf(stream, info)
  local kept = lowest or positionAfter(floor)
  floorsOf[name] = floor
  if not cut or isLower(kept, cut) then cut = kept end
  for _, consumer in ipairs(info[4] > 0 and redis.call('XINFO', 'CONSUMERS', stream, name) or {}) do
    if consumer[4] == 0 and consumer[6] > tonumber(idle) then
      redis.call('XGROUP', 'DELCONSUMER', stream, name, consumer[2])
    end
  end
end
for i = 8, #ARGV do
  local floors, floor = KEYS[i - 5], floorsOf[ARGV[i]]
  if not floor then
    cut = '0-0'
  elseif redis.call('HGET', floors, channel) ~= floor then
    redis.call('HSET', floors, channel, floor)
  end
end
local now = clock()
local young, old = positionAt(now - tonumber(grace)), positionAt(now - tonumber(age))
cut = cut or '0-0'
local again = isLower(young, cut)
if again then cut = young end
if age ~= '0' and isLower(cut, old) then cut = old end
if least ~= '' and isLower(cut, least) then cut = least end
local removed, bytes, largest, more = 0, 0, 64, false
local function step(strategy, limit)
  local some = redis.call('XTRIM', stream, strategy, '~', strategy == 'MINID' and cut or longest, 'LIMIT', limit)
  removed, bytes = removed + some, bytes + some * largest
  return some
end
local function trimBy(strategy, isBeyond)
  while not more do
    local head = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not head or not isBeyond(head[1]) then return end
    largest = math.max(largest, sizeOf(head))
    local some = step(strategy, math.max(1, math.min(100, math.floor(262144 / largest))))
    if some == 0 then some = step(strategy, 100) end
    if some == 0 then some = step(strategy, 10000) end
    if some == 0 then
      -- A part of one node is left.
      if strategy == 'MINID' then removed = removed + redis.call('XTRIM', stream, 'MINID', cut) end
      return
    end
    more = removed >= 5000 or bytes >= 1048576
  end
end
trimBy('MINID', function(position) return isLower(position, cut) end)
if longest ~= '-1' then trimBy('MAXLEN', function() return redis.call('XLEN', stream) > tonumber(longest) end) end
if more then return {removed, 2} end
return {removed, redis.call('XLEN', stream) > 0 and (again and 1 or age ~= '0' and 3) or 0}
`
