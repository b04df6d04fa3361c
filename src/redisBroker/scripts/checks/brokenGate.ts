import { idempotentScript } from "../../script.ts"
import { gateConsumer, line, orderingKeyOf } from "../parts/gate.ts"
import { positions } from "../parts/positions.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Whether the gate of a group on a channel is not as its messages say (see `parts/gate.ts`). Repair builds it anew from these. Where an ordering
 * key has no head, the first message that waits for it becomes its head; its lease has expired, so that it is taken over. That is its
 * first hand-out.
 *
 * Another program can do this to a gate, and a limit that removes the head of a consumer that is lost: then nobody knows its key any more.
 *
 * KEYS: log, retry stream, bodies, busy, lines, behind and reached of the group and channel.
 * ARGV: `check` or `repair`, group, consumer for which new heads are pending.
 * Reply: {1 when it can be told (0: a message that is handed out is gone from its stream, or there is too much to look at), at most 100
 * problems, number of the messages that wait and are gone from their stream: a repair ends them}. A problem is {name, ordering key or message}; `closed`: a key has no head; `open`: a key with a head is not busy; `unlinked`:
 * a message waits in no line; `link`: what stands in a line does not wait.
 *
 * Writes: types are checked first. DEL passes when memory is full, and lets the rest pass.
 */
export const brokenGate = idempotentScript("brokenGate")`
local log, retry, bodies, busy, lines, behind, reached = unpack(KEYS)
local step, group, consumer = ARGV[1], ARGV[2], ARGV[3]
local most = 20000
${wrongType}${positions}${line}${orderingKeyOf}
local problem = wrongType(log, 'stream') or wrongType(retry, 'stream') or wrongType(bodies, 'hash') or wrongType(busy, 'set')
  or wrongType(lines, 'hash') or wrongType(behind, 'hash') or wrongType(reached, 'hash')
if problem then return problem end
if redis.call('EXISTS', busy, lines, behind, reached) == 0 then return {1, {}, 0} end
if redis.call('SCARD', busy) + redis.call('HLEN', behind) + redis.call('HLEN', bodies) > most then return {0} end
local headed, linked, isTold = {}, {}, true
for _, body in ipairs(redis.call('HVALS', bodies)) do
  local key, isHead = keyOfBody(body)
  if isHead then headed[key] = true end
end
local waiting, gone, isPending, looked = {}, {}, {}, 0
local function look(stream, kind)
  local place
  for _, info in ipairs(redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}) do
    if info[2] == group then place = info[8] end
  end
  if not place then return end
  local frontier = redis.call('HGET', reached, kind)
  local leases = redis.call('XPENDING', stream, group, '-', '+', most)
  looked = looked + #leases
  for _, lease in ipairs(leases) do
    local position, owner = lease[1], lease[2]
    local link = kind .. position
    isPending[link] = true
    local entry = redis.call('XRANGE', stream, position, position)[1]
    local key, isHead = orderingKeyOf(entry)
    if not entry then
      if owner == '${gateConsumer}' then gone[#gone + 1] = {stream, position} else isTold = false end
    elseif owner == '${gateConsumer}' then
      if key then waiting[#waiting + 1] = {key, link, stream, position, true} end
    elseif isHead then
      headed[key] = true
    elseif key and frontier and not isLower(frontier, position) then
      -- One that its consumer has read and not entered may have been entered by another one.
      if isWaiting(key, link) then waiting[#waiting + 1] = {key, link, stream, position} else headed[key] = true end
    end
  end
  if kind == 'r' then
    local unread = redis.call('XRANGE', stream, '(' .. place, '+', 'COUNT', most)
    looked = looked + #unread
    for _, entry in ipairs(unread) do
      local key, isHead = orderingKeyOf(entry)
      if isHead then headed[key] = true end
    end
  end
end
look(log, 'l')
look(retry, 'r')
if not isTold or looked >= most then return {0} end
local problems = {}
local function found(name, text)
  if #problems < 100 then problems[#problems + 1] = {name, text} end
end
for _, key in ipairs(redis.call('SMEMBERS', busy)) do
  if not headed[key] then found('closed', key) end
end
for key in pairs(headed) do
  if redis.call('SISMEMBER', busy, key) == 0 then found('open', key) end
end
local all = redis.call('HGETALL', lines)
for i = 1, #all, 2 do
  local link, last = string.match(all[i + 1], '^(%S+) (%S+)$')
  while link do
    if linked[link] then break end
    linked[link] = true
    if not isPending[link] then found('link', link) end
    link = link ~= last and redis.call('HGET', behind, link) or nil
  end
end
for _, one in ipairs(waiting) do
  if not linked[one[2]] then found('unlinked', one[2]) end
end
if step == 'repair' and #problems > 0 then
  redis.call('DEL', busy, lines, behind)
  for _, one in ipairs(gone) do redis.call('XACK', one[1], group, one[2]) end
  for key in pairs(headed) do redis.call('SADD', busy, key) end
  for _, one in ipairs(waiting) do
    local key, link, stream, position, isGates = unpack(one, 1, 5)
    if redis.call('SADD', busy, key) == 0 then
      putBehind(key, link)
    elseif isGates then
      redis.call('XCLAIM', stream, group, consumer, 0, position, 'IDLE', 2592000000, 'RETRYCOUNT', 0, 'JUSTID')
    end
  end
end
return {1, problems, #gone}
`
