import { idempotentScript } from "../../script.ts"
import { bodyFields } from "../parts/bodyFields.ts"
import { noRoom } from "../parts/preconditions.ts"
import { add, makeStream } from "../parts/makeStream.ts"
import { clock, firstTime, millisUntil } from "../parts/time.ts"
import { isText } from "../parts/utf8.ts"

/**
 * Moves waiting messages that are due into the streams they wait for, in the order of their due times. A second promoter finds them gone.
 *
 * KEYS: waiting, then for each target: bodies, stream, retries of the group (a log: the log again).
 * ARGV: at most how many, ms by which a message is put off whose bodies or stream have a wrong type or whose stream has no room, an offset,
 * then for each target: its members without an id (group and channel, each with a line feed). With an offset ("": none) only retries are moved,
 * and that many due messages are passed over unread.
 * Reply: {moved, removed without a readable body, put off, targets that were not named, ms until the next is due (0: some are due already;
 * -1: none waits), with an offset the number of scheduled messages that are due and were passed over}.
 *
 * A name without a body whose group has no retry stream for the channel any more belongs to a group that was removed. After about 1 MiB a call
 * ends, and says that more is due.
 *
 * Writes: types and room are checked first. The first write passes when memory is full, and lets the rest pass: waiting messages are only
 * moved, and freed once they are handled. The XADD of each message still comes before its removal.
 */
export const promote = idempotentScript("promote")`
local waiting = KEYS[1]
local limit, off = ARGV[1], tonumber(ARGV[2])
local targets, keys, longest = {}, KEYS, 1048576
local offset, passed = tonumber(ARGV[3]), 0
for i = 4, #ARGV do
  local at = 3 * i - 10
  targets[ARGV[i]] = {
    bodies = keys[at], stream = keys[at + 1], retries = keys[at + 2], isLog = string.byte(ARGV[i]) == 10, taken = {}
  }
end
${noRoom}${bodyFields}${makeStream}${add}${clock}${firstTime}${millisUntil}${isText}
local now = clock()
redis.call('ZREM', waiting, '')
local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'WITHSCORES', 'LIMIT', offset or 0, limit)
local moved, broken, aside, bytes = 0, 0, 0, 0
local unknown, isUnknown, gone, failure = {}, {}, {}, nil
local prefix, target = nil, nil
local function isRemoved(target)
  local channel = string.sub(string.match(prefix, '\\n.*'), 2, -2)
  return not target.isLog and redis.call('SISMEMBER', target.retries, channel) == 0
end
local function addTo(target, id, body, late)
  if target.isLog then return isBody(body) and add(redis.pcall, target.stream, fieldsOf(id, body, late)) end
  return string.find(body, '\\n', 1, true) and add(redis.pcall, target.stream, 'b', body)
end
for i = 1, #due, 2 do
  local member = due[i]
  -- A message that waits for its first delivery begins with the line feed behind no group.
  local isPassed = offset and string.byte(member) == 10
  if isPassed then
    passed = passed + 1
  elseif not prefix or string.sub(member, 1, #prefix) ~= prefix then
    local a = string.find(member, '\\n', 1, true)
    local b = a and string.find(member, '\\n', a + 1, true)
    prefix = b and string.sub(member, 1, b)
    target = prefix and targets[prefix]
  end
  if isPassed then
    -- It stays.
  elseif not prefix or not target and not isText(prefix) then
    prefix = nil
    gone[#gone + 1] = member
    broken = broken + 1
  elseif target then
    local id = string.sub(member, #prefix + 1)
    if target.problem == nil then
      target.problem = wrongType(target.bodies, 'hash') or wrongType(target.stream, 'stream')
        or not target.isLog and wrongType(target.retries, 'set') or false
    end
    local body = not target.problem and redis.call('HGET', target.bodies, id)
    if body and not target.room then target.room = roomIn(target.stream, #body) end
    if target.problem or body and target.room == 0 then
      redis.call('ZADD', waiting, 'XX', string.format('%.0f', now + off), member)
      aside = aside + 1
    else
      local reply = body and addTo(target, id, body, now - tonumber(due[i + 1]))
      if reply and reply.err then
        failure = reply
        break
      end
      gone[#gone + 1] = member
      target.taken[#target.taken + 1] = id
      if reply then
        target.room = target.room - 1
        moved = moved + 1
      elseif body or not isRemoved(target) then
        broken = broken + 1
      end
      bytes = bytes + (body and #body or 0)
      if bytes >= longest then break end
    end
  elseif not isUnknown[prefix] then
    isUnknown[prefix] = true
    unknown[#unknown + 1] = prefix
  end
end
if #gone > 0 then redis.call('ZREM', waiting, unpack(gone)) end
for _, target in pairs(targets) do
  if #target.taken > 0 then redis.call('HDEL', target.bodies, unpack(target.taken)) end
end
if failure and #gone + aside == 0 then return failure end
local first
if offset then
  local rest = redis.call('ZCOUNT', waiting, '-inf', now) - offset - passed
  first = rest > 0 and now or tonumber(redis.call('ZRANGEBYSCORE', waiting, '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
else
  first = firstTime(waiting)
end
return {moved, broken, aside, unknown, millisUntil(first, now), offset and passed}
`
