import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { positions } from "../parts/positions.ts"

/**
 * Removes from the head of a stream what every group has acknowledged, then what is beyond the limits of the channel, and
 * remembers how far each group has come.
 *
 * KEYS: meta, stream, floors of each expected group. ARGV: version the caller knows, grace in ms, maximal age in ms (0: none),
 * minimal position ("": none), maximal length (-1: none), idle ms after which an empty consumer is removed, channel, expected
 * groups. Reply: {entries removed (-1 when the version is another: a group or channel came meanwhile, look again), 2 when there is more
 * to be removed at once, 1 when more will be after the grace, 3 when age alone will let more be removed, else 0}.
 *
 * An expected group that is not on the stream yet has acknowledged nothing. Nothing younger than the grace is removed for being
 * acknowledged: a publish whose answer was lost is searched for in the tail.
 *
 * A call ends after 5,000 entries or about 1 MiB. How much a step may remove follows from the size of the oldest entry: XTRIM is told entries and
 * removes whole nodes, which hold 100 entries or 4 KiB (stream-node-max-entries, stream-node-max-bytes), so that of large ones each has its own.
 */
export const trim: Script = {
  name: "trim",
  lua: `
local meta, stream = KEYS[1], KEYS[2]
local version, grace, age, least, longest, idle, channel = unpack(ARGV, 1, 7)
if (redis.call('HGET', meta, 'v') or '0') ~= version then return {-1, 1} end
${checking}
local problem, found = wrongType(stream, 'stream')
if found == 'none' then return {0, 0} end
for i = 3, #KEYS do problem = problem or wrongType(KEYS[i], 'hash') end
if problem then return problem end
${positions}
local floorsOf, cut = {}, nil
-- The first write is one that passes when memory is full and lets the rest pass: this is what frees memory.
redis.call('HDEL', meta, '')
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local name, floor, keep = info[2], floorOf(stream, info)
  if not keep then
    local time, sequence = parse(floor)
    keep = sequence < 9007199254740991 and text(time) .. '-' .. text(sequence + 1) or text(time + 1) .. '-0'
  end
  floorsOf[name] = floor
  if not cut or lower(keep, cut) then cut = keep end
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
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local young = text(now - tonumber(grace)) .. '-0'
cut = cut or '0-0'
local again = lower(young, cut)
if again then cut = young end
local old = text(now - tonumber(age)) .. '-0'
if age ~= '0' and lower(cut, old) then cut = old end
if least ~= '' and lower(cut, least) then cut = least end
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
    local size = 0
    for _, field in ipairs(head[2]) do size = size + #field end
    largest = math.max(largest, size)
    local some = step(strategy, math.max(1, math.min(100, math.floor(262144 / largest))))
    if some == 0 then some = step(strategy, 100) end
    if some == 0 then some = step(strategy, 10000) end
    if some == 0 then
      -- What is left is a part of one node.
      if strategy == 'MINID' then removed = removed + redis.call('XTRIM', stream, 'MINID', cut) end
      return
    end
    more = removed >= 5000 or bytes >= 1048576
  end
end
trimBy('MINID', function(position) return lower(position, cut) end)
if longest ~= '-1' then trimBy('MAXLEN', function() return redis.call('XLEN', stream) > tonumber(longest) end) end
if more then return {removed, 2} end
return {removed, redis.call('XLEN', stream) > 0 and (again and 1 or age ~= '0' and 3) or 0}
`
}
