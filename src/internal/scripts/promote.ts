import type { Script } from "../../Redis.ts"
import { fieldsOfBody } from "./parts/fields.ts"
import { addingTo } from "./parts/streams.ts"
import { utf8 } from "./parts/utf8.ts"

/**
 * Moves waiting messages that are due into the streams they wait for, in the order of their time. Whoever comes second finds them
 * gone.
 *
 * KEYS: waiting, then for each target: bodies, stream. ARGV: how many at most, ms by which a message is put off whose bodies or
 * stream have a wrong type, or whose stream takes nothing more, then for each target: its members without an id (group and channel, each with a line feed).
 * Reply: {moved, removed without a readable body, put off, targets that were not named, ms until the next is due (0: some are due
 * already; -1: nothing waits)}.
 *
 * Of each message the XADD comes first: it is the write that can be refused, and then the message still waits. What was added is
 * removed in the same script, whatever becomes of the others. A script takes no more than about 4 MiB.
 */
export const promote: Script = {
  name: "promote",
  lua: `
local waiting = KEYS[1]
local limit, off = ARGV[1], tonumber(ARGV[2])
local targets, keys = {}, KEYS
for i = 3, #ARGV do targets[ARGV[i]] = {bodies = keys[2 * i - 4], stream = keys[2 * i - 3], isLog = string.byte(ARGV[i]) == 10} end
${fieldsOfBody}
${addingTo}
${utf8}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, limit)
local moved, broken, aside, bytes = 0, 0, 0, 0
local unknown, isUnknown, failure = {}, {}, nil
local prefix, target = nil, nil
for from = 1, #due, 50 do
  -- What is to be moved of this slice, with its target, and the ids each target wants.
  local slice, wanted = {}, {}
  local gone = {}
  for i = from, math.min(from + 49, #due) do
    local member = due[i]
    if not prefix or string.sub(member, 1, #prefix) ~= prefix then
      local a = string.find(member, '\\n', 1, true)
      local b = a and string.find(member, '\\n', a + 1, true)
      prefix = b and string.sub(member, 1, b)
      target = prefix and targets[prefix]
    end
    if not prefix or not target and not isText(prefix) then
      prefix = nil
      gone[#gone + 1] = member
      broken = broken + 1
    elseif target then
      local list = wanted[target]
      if not list then
        list = {}
        wanted[target] = list
      end
      list[#list + 1] = string.sub(member, #prefix + 1)
      slice[#slice + 1] = {member, target, #list}
    elseif not isUnknown[prefix] then
      isUnknown[prefix] = true
      unknown[#unknown + 1] = prefix
    end
  end
  local bodies = {}
  for target, ids in pairs(wanted) do bodies[target] = redis.pcall('HMGET', target.bodies, unpack(ids)) end
  local taken = {}
  for _, item in ipairs(slice) do
    local member, target, index = item[1], item[2], item[3]
    local id, body = wanted[target][index], bodies[target][index]
    local reply = bodies[target].err and bodies[target]
    if body then
      bytes = bytes + #body
      if target.isLog and string.byte(body) == 10 then
        reply = add(redis.pcall, target.stream, 'i', id, 'p', string.sub(body, 2))
      elseif target.isLog then
        local late = now - tonumber(redis.call('ZSCORE', waiting, member))
        local fields = fieldsOf(id, body, late)
        reply = fields and add(redis.pcall, target.stream, unpack(fields))
      else
        local separator = string.find(body, '\\n', 1, true)
        reply = separator and add(
          redis.pcall, target.stream, 'm', string.sub(body, 1, separator - 1), 'p', string.sub(body, separator + 1))
      end
    end
    if reply and reply.err and (string.find(reply.err, 'WRONGTYPE', 1, true) or string.find(reply.err, 'exhausted', 1, true)) then
      redis.call('ZADD', waiting, 'XX', string.format('%.0f', now + off), member)
      aside = aside + 1
    elseif reply and reply.err then
      failure = reply
      break
    else
      gone[#gone + 1] = member
      local list = taken[target]
      if not list then
        list = {}
        taken[target] = list
      end
      list[#list + 1] = id
      if reply then moved = moved + 1 else broken = broken + 1 end
    end
  end
  if #gone > 0 then redis.call('ZREM', waiting, unpack(gone)) end
  for target, ids in pairs(taken) do redis.call('HDEL', target.bodies, unpack(ids)) end
  if failure or bytes > 4194304 then break end
end
if failure and moved + broken + aside == 0 then return failure end
local first = tonumber(redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2])
local wait = -1
if first then wait = first <= now and 0 or math.min(math.ceil(first - now), 2000000000) end
return {moved, broken, aside, unknown, wait}
`
}
