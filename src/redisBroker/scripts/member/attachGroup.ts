import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { makingStreams } from "../parts/makeStream.ts"
import { positions } from "../parts/positions.ts"
import { removals } from "../parts/removals.ts"

/**
 * Creates a group on streams where it is missing: at its stored floor if it has one there, else at the given position, which
 * becomes its floor, so that a group that is lost before the janitor has seen it does not go back to the beginning. The position
 * `settled` is up to where all other groups of the channel have acknowledged everything: what is left of that only waits for the janitor.
 *
 * KEYS: floors of the group, counts, settled, removals of the group, then for each stream: the stream, the retry stream and the bodies of its channel (a
 * retry stream: itself). ARGV: group, position, the removals that the caller knows, then for each stream its channel and the other groups that
 * are registered for it, with a line feed before each of these (with one before the channel: its retry stream, which is always read from its
 * beginning). Reply: the numbers, from 1, of the streams on which it was created, and of those that are no streams: nothing was done there.
 * Nothing when the group was removed since: then nothing was done at all.
 *
 * With a group its account begins: "s" in `counts` is how many messages were stored before it, without those it has from an earlier
 * life (dead letters, and what was requeued from them). How many lie before a position in the middle of a long log is not
 * counted, and then there is no "s". Nor is there one where retry stream or bodies are none.
 */
export const attachGroup: Script = {
  name: "attachGroup",
  lua: `
local floors, counts, settled, removed = unpack(KEYS)
local group, start, known = ARGV[1], ARGV[2], ARGV[3]
local created, wrong = {}, {}
${checking}
${removals}
${makingStreams}
local problem = wrongType(floors, 'hash') or wrongType(counts, 'hash') or wrongType(settled, 'hash') or wrongType(removed, 'hash')
if problem then return problem end
if wasRemoved(removed, known) then return false end
${positions}
local function begins(stream, channel, others)
  local lowest, groups = nil, {}
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local floor = floorOf(stream, info)
    groups[info[2]] = true
    if not lowest or lower(floor, lowest) then lowest = floor end
  end
  -- One that has not come to the channel yet has acknowledged nothing.
  for other in string.gmatch(others, '[^\\n]+') do if not groups[other] then return '0' end end
  -- The last group of the channel may have been removed.
  if not lowest then lowest = redis.call('HGET', settled, channel) end
  return (not lowest or lowest == '0-0' or not string.find(lowest, '^%d+%-%d+$')) and '0' or lowest
end
local function before(stream, position, last, added, length)
  if position == last then return added end
  if position == '0' then return added - length end
  local time, sequence = parse(position)
  local lastTime, lastSequence = parse(last)
  -- What comes until then is not for the group either.
  if time > lastTime or (time == lastTime and sequence > lastSequence) then return nil end
  -- From whichever end is nearer, but never far.
  local later = length == 0 and 0 or #redis.call('XRANGE', stream, '(' .. position, '+', 'COUNT', 100)
  if later < 100 then return added - later end
  local earlier = #redis.call('XRANGE', stream, '-', position, 'COUNT', 100)
  return earlier < 100 and added - length + earlier or nil
end
local function old(account, retry, bodies)
  if wrongType(retry, 'stream') or wrongType(bodies, 'hash') then return nil end
  local sum = redis.call('HLEN', bodies)
  for _, reason in ipairs({'exhausted', 'term', 'decode', 'crashed', 'expired'}) do
    sum = sum + (tonumber(redis.call('HGET', counts, 'd\\n' .. account .. '\\n' .. reason)) or 0)
  end
  if redis.call('EXISTS', retry) == 0 then return sum end
  return sum + redis.call('XINFO', 'STREAM', retry)[12] - (tonumber(redis.call('HGET', counts, 'z\\n' .. account)) or 0)
end
for i = 5, #KEYS, 3 do
  local stream = KEYS[i]
  if redis.call('EXISTS', stream) == 0 then makeStream(stream) end
  local isStream, exists = redis.call('TYPE', stream).ok == 'stream', false
  for _, info in ipairs(isStream and redis.call('XINFO', 'GROUPS', stream) or {}) do
    if info[2] == group then exists = true end
  end
  if not isStream then
    wrong[#wrong + 1] = (i - 2) / 3
  elseif not exists then
    local info = redis.call('XINFO', 'STREAM', stream)
    local length, last, added = info[2], info[8], info[12]
    local channel, others = string.match(ARGV[3 + (i - 2) / 3], '^(\\n?[^\\n]*)(.*)$')
    local isRetry = string.byte(channel) == 10
    local position = '0'
    if not isRetry then
      local floor = redis.call('HGET', floors, channel)
      -- Written by another program.
      if floor and not string.find(floor, '^%d+%-?%d*$') then floor = nil end
      position = floor or start
      if position == '$' then position = last elseif position == 'settled' then position = begins(stream, channel, others) end
      if not floor and position ~= '0' then redis.call('HSET', floors, channel, position) end
    end
    local skipped = before(stream, position, last, added, length)
    redis.call('XGROUP', 'CREATE', stream, group, position)
    if isRetry then
      -- What is in it will be settled again; what is not has been.
      local field, settled = 'z\\n' .. group .. channel, added - length
      if settled > 0 then redis.call('HSET', counts, field, settled) else redis.call('HDEL', counts, field) end
    else
      local account = group .. '\\n' .. channel
      for _, kind in ipairs({'a', 'u', 'f', 'r', 'b', 'c', 'x', 's'}) do redis.call('HDEL', counts, kind .. '\\n' .. account) end
      local earlier = skipped and old(account, KEYS[i + 1], KEYS[i + 2])
      if earlier then redis.call('HSET', counts, 's\\n' .. account, skipped - earlier) end
    end
    created[#created + 1] = (i - 2) / 3
  end
end
return {created, wrong}
`
}
