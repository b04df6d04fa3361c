import type { Script } from "../../Redis.ts"

/**
 * Removes from the head of a stream what every group has acknowledged, then what is beyond the limits of the channel, and
 * remembers how far each group has come.
 *
 * KEYS: meta, stream, floors of each expected group. ARGV: version the caller knows, grace in ms, maximal age in ms (0: none),
 * minimal position ("": none), maximal length (-1: none), idle ms after which an empty consumer is removed, channel, expected
 * groups. Reply: {entries removed (-1 when the version is another: a group or channel came meanwhile, look again), 1 when time
 * alone will let more be removed, else 0}.
 *
 * An expected group that is not on the stream yet has acknowledged nothing. Nothing younger than the grace is removed for being
 * acknowledged: a publish whose answer was lost is searched for in the tail. At most 100,000 entries go in one call.
 */
export const trim: Script = {
  name: "trim",
  lua: `
local meta, stream = KEYS[1], KEYS[2]
local version, grace, age, least, longest, idle, channel = unpack(ARGV, 1, 7)
if (redis.call('HGET', meta, 'v') or '0') ~= version then return {-1, 1} end
if redis.call('EXISTS', stream) == 0 then return {0, 0} end
local function parse(position)
  local dash = string.find(position, '-', 1, true)
  if not dash then return tonumber(position), 0 end
  return tonumber(string.sub(position, 1, dash - 1)), tonumber(string.sub(position, dash + 1))
end
local function lower(a, b)
  local aTime, aSequence = parse(a)
  local bTime, bSequence = parse(b)
  return aTime < bTime or (aTime == bTime and aSequence < bSequence)
end
local function text(number) return string.format('%.0f', number) end
local found, cut = {}, nil
-- The first write is one that passes when memory is full and lets the rest pass: this is what frees memory.
redis.call('HDEL', meta, '')
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  local keep, floor
  if group['pending'] > 0 then
    keep = redis.call('XPENDING', stream, group['name'])[2]
    local time, sequence = parse(keep)
    floor = sequence > 0 and text(time) .. '-' .. text(sequence - 1) or text(time - 1) .. '-18446744073709551615'
    if time == 0 then floor = '0-0' end
  else
    floor = group['last-delivered-id']
    local time, sequence = parse(floor)
    keep = sequence < 9007199254740991 and text(time) .. '-' .. text(sequence + 1) or text(time + 1) .. '-0'
  end
  found[group['name']] = floor
  if not cut or lower(keep, cut) then cut = keep end
  for _, consumer in ipairs(group['consumers'] > 0 and redis.call('XINFO', 'CONSUMERS', stream, group['name']) or {}) do
    if consumer[4] == 0 and consumer[6] > tonumber(idle) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group['name'], consumer[2])
    end
  end
end
for i = 8, #ARGV do
  local floors, floor = KEYS[i - 5], found[ARGV[i]]
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
local removed = 0
for _ = 1, 10 do
  local some = redis.call('XTRIM', stream, 'MINID', '~', cut, 'LIMIT', 10000)
  removed = removed + some
  if some == 0 then
    removed = removed + redis.call('XTRIM', stream, 'MINID', cut)
    break
  end
end
if longest ~= '-1' then removed = removed + redis.call('XTRIM', stream, 'MAXLEN', '~', longest) end
return {removed, (again or age ~= '0') and redis.call('XLEN', stream) > 0 and 1 or 0}
`
}
