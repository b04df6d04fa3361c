import { idempotentScript } from "../../script.ts"
import type { Counter } from "../../counters.ts"
import { counters, letterCounter, reasons, reported } from "../../counters.ts"
import { listOf } from "../parts/counting.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { gateConsumer } from "../parts/gate.ts"
import { positions } from "../parts/positions.ts"
import { streamInfo } from "../parts/streamInfo.ts"
import { clock } from "../parts/time.ts"

/** The place of a total in the lists of the script. */
const placeOf = (counter: Counter & typeof reported[number]) => reported.indexOf(counter) + 1

/**
 * Reads the statistics of a channel and its groups, all at one time. Its work depends on the number of groups and consumers, not on that
 * of messages.
 *
 * KEYS: log, counts, bodies of the channel (of no group), then for each group: retry stream, bodies.
 * ARGV: channel, groups.
 * Reply: {messages in the log, messages ever stored, messages scheduled, groups, number of groups left}. A group is {lag (-1: it is in the
 * middle of the log), pending, ready, due, age in ms of the oldest message that is not settled (-1: there is none), each total of `reported`
 * ("stored before" is false where it is not known), the number of dead letters of each of the `reasons`, consumers}; a consumer is {name,
 * pending, idle time}. After about 1 MiB a call ends, since XINFO gives an entry as well.
 *
 * The lag that Redis tells is not to be trusted: it knows none of a group that began in the middle, counts entries that a limit removed, and
 * forgets entries that were read when it replays its file (7.0). The lag of a group in the middle of its log follows from all else.
 *
 * Writes: one number, "stored before" of a group that began in the middle of a long log, once it has come to the end.
 */
export const statistics = idempotentScript("statistics")`
local log, counts, scheduled = KEYS[1], KEYS[2], KEYS[3]
local channel, total = ARGV[1], #ARGV
local keys, names = KEYS, ARGV
${clock}${positions}${sizeOf}${streamInfo}
local now, bytes = clock(), 0
local function lookAt(stream)
  if redis.call('TYPE', stream).ok ~= 'stream' then return nil end
  local info, groups = infoOf(stream), {}
  local entry = info['entries'][1]
  bytes = bytes + sizeOf(entry)
  for _, flat in ipairs(info['groups']) do
    local group = map(flat)
    groups[group['name']] = group
  end
  return info, groups, entry and entry[1]
end
local function earlier(oldest, position)
  local time = parse(position)
  return oldest and math.min(oldest, time) or time
end
-- The position of the first entry that the group has not read. To read an entry costs as much as it is large: the first one is known already.
local function firstUnread(stream, at, first, last)
  if not first or not isLower(at, last) then return nil end
  if isLower(at, first) then return first end
  local entry = redis.call('XRANGE', stream, '(' .. at, '+', 'COUNT', 1)[1]
  bytes = bytes + sizeOf(entry)
  return entry and entry[1]
end
local function addConsumers(consumers, byName, group)
  for _, flat in ipairs(group['consumers']) do
    local consumer = map(flat)
    local name, idle = consumer['name'], math.max(0, now - consumer['seen-time'])
    local known = byName[name]
    if name == '${gateConsumer}' then
      -- What waits for its ordering key is pending, and nobody has it.
      known = {name, 0, 0}
    elseif not known then
      known = {name, 0, idle}
      byName[name] = known
      consumers[#consumers + 1] = known
    end
    known[2] = known[2] + consumer['pel-count']
    known[3] = math.min(known[3], idle)
  end
end
local later, info, groups, first = redis.call('HLEN', scheduled), lookAt(log)
if not info then return {0, 0, later, {}, 0} end
local length, last, reply = info['length'], info['last-generated-id'], {}
for i = 2, total do
  local name, retry, bodies = names[i], keys[2 * i], keys[2 * i + 1]
  local account, oldest, consumers, byName = name .. '\\n' .. channel, nil, {}, {}
  local function read(stream, group, first, last)
    if group['pel-count'] > 0 then oldest = earlier(oldest, redis.call('XPENDING', stream, name)[2]) end
    local unread = firstUnread(stream, group['last-delivered-id'], first, last)
    if unread then oldest = earlier(oldest, unread) end
    addConsumers(consumers, byName, group)
  end
  local group, lag, pending, ready = groups[name], length, 0, 0
  if group then
    local at = group['last-delivered-id']
    pending = group['pel-count']
    if not first or not isLower(at, last) then lag = 0
    elseif isLower(at, first) then lag = length
    else lag = -1 end
    read(log, group, first, last)
  elseif first then
    oldest = earlier(nil, first)
  end
  local back, groupsBack, firstBack = lookAt(retry)
  if back then
    local again = groupsBack[name]
    local settled = tonumber(redis.call('HGET', counts, '${counters.settledRetries}\\n' .. account)) or 0
    ready = back['entries-added'] - settled
    if again then
      pending = pending + again['pel-count']
      ready = ready - again['pel-count']
      read(retry, again, firstBack, back['last-generated-id'])
    end
  end
  local fields = {}
  for _, letter in ipairs(${
  listOf(reported.map((counter) => counters[counter]))
}) do fields[#fields + 1] = letter .. '\\n' .. account end
  for _, reason in ipairs(${
  listOf(reasons)
}) do fields[#fields + 1] = '${letterCounter}\\n' .. account .. '\\n' .. reason end
  local found, numbers = redis.call('HMGET', counts, unpack(fields)), {}
  for j = 1, #fields do numbers[j] = tonumber(found[j]) or 0 end
  local due, storedBefore = redis.call('HLEN', bodies), ${placeOf("storedBefore")}
  if not found[storedBefore] then
    numbers[storedBefore] = false
    if lag >= 0 then
      local acked, removed, dead = numbers[${placeOf("acked")}], numbers[${placeOf("removed")}], 0
      for j = ${reported.length + 1}, #numbers do dead = dead + numbers[j] end
      numbers[storedBefore] = info['entries-added'] - lag - acked - removed - pending - ready - due - dead
      -- Where memory is full it is found again the next time.
      if group then redis.pcall('HSETNX', counts, fields[storedBefore], numbers[storedBefore]) end
    end
  end
  local one = {lag, pending, ready, due, oldest and math.max(0, now - oldest) or -1, unpack(numbers)}
  one[#one + 1] = consumers
  reply[#reply + 1] = one
  if bytes >= 1048576 then break end
end
return {length, info['entries-added'], later, reply, total - 1 - #reply}
`
