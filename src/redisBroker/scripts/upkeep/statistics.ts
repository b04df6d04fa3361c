import type { Script } from "../../../Redis.ts"

/**
 * Looks at a channel and its groups, all at one time. Its work depends on the number of groups and consumers, not of messages.
 *
 * KEYS: log, counts, bodies of the channel (of no group), then for each group: retry stream, bodies. ARGV: channel, groups.
 * Reply: {messages kept, messages ever stored, messages scheduled, groups}; of each group {lag (-1: it is in the midst of the log), pending, ready, due, age of the oldest message
 * that is not settled in ms (-1: there is none), started (false: not known), acked, duplicates, failed, retried, buried, crashed,
 * removed, then for each reason of dead letters how many there are, consumers}, of each consumer its name, pending and idle time; how many groups are left:
 * after about 1 MiB a call ends, since XINFO gives entries as well.
 *
 * It writes one thing: where a group began that did so in the middle of a long log, once it is seen at the end.
 *
 * The lag that Redis tells is not to be trusted: it knows none of a group that began in the middle, counts what a limit removed, and forgets
 * what was read when it replays its file (7.0). Of a group in the midst of its log it follows from all else.
 */
export const statistics: Script = {
  name: "statistics",
  lua: `
local log, counts, scheduled = KEYS[1], KEYS[2], KEYS[3]
local channel, total = ARGV[1], #ARGV
local keys, names = KEYS, ARGV
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function parse(position)
  local dash = string.find(position, '-', 1, true)
  return tonumber(string.sub(position, 1, dash - 1)), tonumber(string.sub(position, dash + 1))
end
local function lower(a, b)
  local aTime, aSequence = parse(a)
  local bTime, bSequence = parse(b)
  return aTime < bTime or (aTime == bTime and aSequence < bSequence)
end
local function map(flat)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end
local bytes = 0
local function weigh(entry)
  for _, field in ipairs(entry and entry[2] or {}) do bytes = bytes + #field end
end
local function infoOf(stream)
  if redis.call('TYPE', stream).ok ~= 'stream' then return nil end
  local info = map(redis.call('XINFO', 'STREAM', stream))
  weigh(info['first-entry'])
  weigh(info['last-entry'])
  return info
end
local function groupsOf(stream)
  local out = {}
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = map(flat)
    out[group['name']] = group
  end
  return out
end
local info, later = infoOf(log), redis.call('HLEN', scheduled)
if not info then return {0, 0, later, {}, 0} end
local length, last = info['length'], info['last-generated-id']
local first = length > 0 and info['first-entry'][1]
local groups, reply = groupsOf(log), {}
for i = 2, total do
  local name, retry, bodies = names[i], keys[2 * i], keys[2 * i + 1]
  local account, oldest, consumers, byName = name .. '\\n' .. channel, nil, {}, {}
  local function look(stream, group, info)
    if group['pending'] > 0 then
      local position = redis.call('XPENDING', stream, name)[2]
      local at = parse(position)
      if not oldest or at < oldest then oldest = at end
    end
    -- To read an entry costs as much as it is large: the first and the last one are known already.
    local at, unread = group['last-delivered-id'], nil
    if info['length'] > 0 and lower(at, info['last-entry'][1]) then
      if lower(at, info['first-entry'][1]) then
        unread = info['first-entry']
      else
        unread = redis.call('XRANGE', stream, '(' .. at, '+', 'COUNT', 1)[1]
        weigh(unread)
      end
    end
    if unread then
      local at = parse(unread[1])
      if not oldest or at < oldest then oldest = at end
    end
    for _, flat in ipairs(group['consumers'] > 0 and redis.call('XINFO', 'CONSUMERS', stream, name) or {}) do
      local consumer = map(flat)
      local known = byName[consumer['name']]
      if not known then
        known = {consumer['name'], 0, consumer['idle']}
        byName[consumer['name']] = known
        consumers[#consumers + 1] = known
      end
      known[2] = known[2] + consumer['pending']
      known[3] = math.min(known[3], consumer['idle'])
    end
  end
  local group, lag, pending, ready = groups[name], length, 0, 0
  if group then
    local at = group['last-delivered-id']
    pending = group['pending']
    if not first or not lower(at, last) then lag = 0
    elseif lower(at, first) then lag = length
    else lag = -1 end
    look(log, group, info)
  elseif first then
    oldest = parse(first)
  end
  local back = infoOf(retry)
  if back then
    local again = groupsOf(retry)[name]
    ready = back['entries-added'] - (tonumber(redis.call('HGET', counts, 'z\\n' .. account)) or 0)
    if again then
      pending = pending + again['pending']
      ready = ready - again['pending']
      look(retry, again, back)
    end
  end
  local fields = {}
  for _, kind in ipairs({'s', 'a', 'u', 'f', 'r', 'b', 'c', 'x'}) do fields[#fields + 1] = kind .. '\\n' .. account end
  for _, reason in ipairs({'exhausted', 'term', 'decode', 'crashed', 'expired'}) do
    fields[#fields + 1] = 'd\\n' .. account .. '\\n' .. reason
  end
  local found, numbers = redis.call('HMGET', counts, unpack(fields)), {}
  for j = 1, #fields do numbers[j] = tonumber(found[j]) or 0 end
  local due = redis.call('HLEN', bodies)
  if not found[1] then
    numbers[1] = false
    if lag >= 0 then
      numbers[1] = info['entries-added'] - lag - numbers[2] - numbers[8] - pending - ready - due
      for j = 9, #numbers do numbers[1] = numbers[1] - numbers[j] end
      -- Where memory is full it is found again the next time.
      if group then redis.pcall('HSETNX', counts, fields[1], numbers[1]) end
    end
  end
  reply[#reply + 1] = {
    lag, pending, ready, due, oldest and math.max(0, now - oldest) or -1, unpack(numbers)
  }
  table.insert(reply[#reply], consumers)
  if bytes >= 1048576 then break end
end
return {length, info['entries-added'], later, reply, total - 1 - #reply}
`
}
