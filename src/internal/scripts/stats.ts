import type { Script } from "../../Redis.ts"

/**
 * Looks at a channel and its groups, all at one time. Its work depends on the number of groups and consumers, not of messages.
 *
 * KEYS: log, counts, bodies of the channel (of no group), then for each group: retry stream, bodies. ARGV: channel, groups.
 * Reply: {messages kept, messages ever stored, messages scheduled, groups}; of each group {lag (-1: not known), pending, ready, due, age of the oldest message
 * that is not settled in ms (-1: there is none), started (false: not known), acked, duplicates, failed, retried, buried, crashed,
 * removed, then for each reason of dead letters how many there are, consumers}, of each consumer its name, pending and idle time.
 *
 * Redis counts what a limit removed before it was read as not read yet. Where the group is at the end or before the beginning of
 * the log its lag is known better.
 */
export const stats: Script = {
  name: "stats",
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
local function groupsOf(stream)
  local out = {}
  if redis.call('EXISTS', stream) == 1 then
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = map(flat)
      out[group['name']] = group
    end
  end
  return out
end
local info = redis.call('EXISTS', log) == 1 and map(redis.call('XINFO', 'STREAM', log)) or nil
if not info then return {0, 0, redis.call('HLEN', scheduled), {}} end
local length, last = info['length'], info['last-generated-id']
local first = length > 0 and info['first-entry'][1]
local groups, reply = groupsOf(log), {}
for i = 2, total do
  local name, retry, bodies = names[i], keys[2 * i], keys[2 * i + 1]
  local account, oldest, consumers, byName = name .. '\\n' .. channel, nil, {}, {}
  local function look(stream, group)
    if group['pending'] > 0 then
      local position = redis.call('XPENDING', stream, name)[2]
      local at = parse(position)
      if not oldest or at < oldest then oldest = at end
    end
    local unread = redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
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
    else lag = group['lag'] and math.min(group['lag'], length) or -1 end
    look(log, group)
  elseif first then
    oldest = parse(first)
  end
  local again = groupsOf(retry)[name]
  if again then
    pending = pending + again['pending']
    ready = again['lag'] or redis.call('XLEN', retry)
    look(retry, again)
  elseif redis.call('EXISTS', retry) == 1 then
    ready = redis.call('XLEN', retry)
  end
  local fields = {}
  for _, kind in ipairs({'s', 'a', 'u', 'f', 'r', 'b', 'c', 'x'}) do fields[#fields + 1] = kind .. '\\n' .. account end
  for _, reason in ipairs({'exhausted', 'term', 'decode', 'crashed', 'expired'}) do
    fields[#fields + 1] = 'd\\n' .. account .. '\\n' .. reason
  end
  local found, numbers = redis.call('HMGET', counts, unpack(fields)), {}
  for j = 1, #fields do numbers[j] = tonumber(found[j]) or 0 end
  if not found[1] then numbers[1] = false end
  if not group then
    numbers[1] = info['entries-added'] - length - ready - redis.call('HLEN', bodies)
    for j = 9, #numbers do numbers[1] = numbers[1] - numbers[j] end
  end
  reply[#reply + 1] = {
    lag, pending, ready, redis.call('HLEN', bodies), oldest and math.max(0, now - oldest) or -1, unpack(numbers)
  }
  table.insert(reply[#reply], consumers)
end
return {length, info['entries-added'], redis.call('HLEN', scheduled), reply}
`
}
