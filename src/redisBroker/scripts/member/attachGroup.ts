import { idempotentScript } from "../../script.ts"
import { counters, letterCounter, reasons, reported } from "../../counters.ts"
import { listOf } from "../parts/counting.ts"
import { makeStream } from "../parts/makeStream.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { groupOf } from "../parts/groupOf.ts"
import { floorOf, isPosition } from "../parts/positions.ts"
import { wrongType } from "../parts/preconditions.ts"
import { streamInfo } from "../parts/streamInfo.ts"
import { wasRemoved } from "../parts/wasRemoved.ts"

/**
 * Creates a group on streams where it is missing: at its stored floor, else at the given position. That becomes its floor, so a group
 * that is lost before the janitor has seen it does not go back to the beginning. The position `settled` is the one up to which all other
 * groups of the channel have acknowledged everything: the entries below it only wait for the janitor.
 *
 * KEYS: floors of the group, counts, settled, removals of the group, taken of the group, then for each stream: the stream, the retry stream and the bodies of
 * its channel (a retry stream: itself).
 * ARGV: group, position, the removals that the caller knows, then for each stream: its channel and the other groups that are registered for
 * it, with a line feed before each group. A retry stream has one before its channel; it is always read from its beginning.
 * Reply: the numbers, from 1, of the streams on which the group was created; those of the keys that are no streams, where nothing was done.
 * Nothing when the group was removed since: then nothing was done at all.
 *
 * Where a group is created, its gate begins anew: nothing is entered. Every consumer looks at what it holds from before.
 *
 * A new group begins its totals. "Stored before" counts the messages before its position, less those it has from an earlier life (dead
 * letters, and messages requeued from them). It is left out where the position lies in the middle of a long log, or of large
 * messages, and where retry stream or bodies have a wrong type.
 */
export const attachGroup = idempotentScript("attachGroup")`
local floors, counts, settled, removed, taken = unpack(KEYS)
local group, start, known = ARGV[1], ARGV[2], ARGV[3]
local created, wrong = {}, {}
${wrongType}${wasRemoved}${makeStream}${floorOf}${isPosition}${sizeOf}${streamInfo}${groupOf}
local problem = wrongType(floors, 'hash') or wrongType(counts, 'hash') or wrongType(settled, 'hash') or wrongType(removed, 'hash')
if problem then return problem end
if wasRemoved(removed, known) then return false end
local function settledByOthers(stream, channel, others)
  local lowest, groups = nil, {}
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local floor = floorOf(stream, info)
    groups[info[2]] = true
    if not lowest or isLower(floor, lowest) then lowest = floor end
  end
  -- A group that has not come to the channel yet has acknowledged nothing.
  for other in string.gmatch(others, '[^\\n]+') do if not groups[other] then return '0' end end
  -- The last group of the channel may have been removed.
  if not lowest then lowest = redis.call('HGET', settled, channel) end
  return lowest and lowest ~= '0-0' and isPosition(lowest) and lowest or '0'
end
-- The number of entries from a position to another: of at most 100, and about 256 KiB of them; nothing when there are more.
local function countOf(stream, from, to)
  local count, bytes = 0, 0
  while count < 100 and bytes < 262144 do
    local entry = redis.call('XRANGE', stream, from, to, 'COUNT', 1)[1]
    if not entry then return count end
    count, bytes, from = count + 1, bytes + sizeOf(entry), '(' .. entry[1]
  end
  return nil
end
local function storedUpTo(position, stream, length, last, added)
  if position == last then return added end
  if position == '0' then return added - length end
  -- The group gets none of the messages that come until then either.
  if isLower(last, position) then return nil end
  -- Counted from the nearer end, but never far.
  local later = countOf(stream, '(' .. position, '+')
  if later then return added - later end
  local earlier = countOf(stream, '-', position)
  return earlier and added - length + earlier
end
local function ofEarlierLife(account, retry, bodies)
  if wrongType(retry, 'stream') or wrongType(bodies, 'hash') then return nil end
  local sum = redis.call('HLEN', bodies)
  for _, reason in ipairs(${listOf(reasons)}) do
    sum = sum + (tonumber(redis.call('HGET', counts, '${letterCounter}\\n' .. account .. '\\n' .. reason)) or 0)
  end
  if redis.call('EXISTS', retry) == 0 then return sum end
  local settledRetries = tonumber(redis.call('HGET', counts, '${counters.settledRetries}\\n' .. account)) or 0
  return sum + infoOf(retry)['entries-added'] - settledRetries
end
local function attachToLog(stream, channel, others, info, retry, bodies)
  local length, last, added = info['length'], info['last-generated-id'], info['entries-added']
  local floor = redis.call('HGET', floors, channel)
  -- Written by another program.
  if floor and not isPosition(floor) then floor = nil end
  local position = floor or start
  if position == '$' then position = last elseif position == 'settled' then position = settledByOthers(stream, channel, others) end
  if not floor and position ~= '0' then redis.call('HSET', floors, channel, position) end
  local stored = storedUpTo(position, stream, length, last, added)
  redis.call('XGROUP', 'CREATE', stream, group, position)
  local account = group .. '\\n' .. channel
  for _, letter in ipairs(${listOf(reported.map((name) => counters[name]))}) do
    redis.call('HDEL', counts, letter .. '\\n' .. account)
  end
  local earlier = stored and ofEarlierLife(account, retry, bodies)
  if earlier then redis.call('HSET', counts, '${counters.storedBefore}\\n' .. account, stored - earlier) end
end
local function attachToRetries(stream, account, info)
  redis.call('XGROUP', 'CREATE', stream, group, '0')
  -- The entries in it will be settled again; those that are gone were settled.
  local field, gone = '${counters.settledRetries}\\n' .. account, info['entries-added'] - info['length']
  if gone > 0 then redis.call('HSET', counts, field, gone) else redis.call('HDEL', counts, field) end
end
for i = 6, #KEYS, 7 do
  local stream, index = KEYS[i], (i + 1) / 7
  if redis.call('EXISTS', stream) == 0 then makeStream(stream) end
  if redis.call('TYPE', stream).ok ~= 'stream' then
    wrong[#wrong + 1] = index
  elseif not groupOf(stream, group) then
    local info = infoOf(stream)
    local channel, others = string.match(ARGV[3 + index], '^(\\n?[^\\n]*)(.*)$')
    local isRetry = string.byte(channel) == 10
    if isRetry then attachToRetries(stream, group .. channel, info)
    else attachToLog(stream, channel, others, info, KEYS[i + 1], KEYS[i + 2]) end
    -- What is left of an earlier gate.
    local gate = isRetry and {taken} or {taken, unpack(KEYS, i + 3, i + 6)}
    if redis.call('EXISTS', unpack(gate)) > 0 then redis.call('DEL', unpack(gate)) end
    if isRetry and redis.call('TYPE', KEYS[i + 6]).ok == 'hash' then redis.call('HDEL', KEYS[i + 6], 'r') end
    created[#created + 1] = index
  end
end
return {created, wrong}
`
