import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Records that the handlers of deliveries begin that were taken over from lost consumers, each while this consumer holds this very hand-out.
 * Their leases start anew.
 *
 * KEYS: the stream, trials of the group and channel.
 * ARGV: group, consumer, kind (`l` for a log, `r` for a retry stream), then for each delivery: position, delivery count.
 * Reply: the refused positions. A second run changes nothing.
 *
 * The field of a delivery is its kind and position. Its value is how often its handler has begun, and the delivery count of the last time, or 0
 * when that was taken back. A delivery count higher than that tells that its consumer was lost meanwhile.
 *
 * Writes: the type is checked first. XCLAIM passes when memory is full, and lets the rest pass: a delivery that cannot begin would never be
 * acknowledged.
 */
export const beginTrial = idempotentScript("beginTrial")`
local stream, trials = KEYS[1], KEYS[2]
local group, consumer, kind = ARGV[1], ARGV[2], ARGV[3]
local args, total = ARGV, #ARGV
${wrongType}
local problem = wrongType(trials, 'hash')
if problem then return problem end
local refused, begun = {}, {'HSET', trials}
for i = 4, total, 2 do
  local position, count = args[i], args[i + 1]
  local lease = redis.call('XPENDING', stream, group, position, position, 1)[1]
  local isMine = lease and lease[2] == consumer and lease[4] == tonumber(count)
  -- An entry that was removed from the log meanwhile is not handed out any more.
  if not isMine or #redis.call('XCLAIM', stream, group, consumer, 0, position, 'JUSTID') == 0 then
    refused[#refused + 1] = position
  else
    local times, at = string.match(redis.call('HGET', trials, kind .. position) or '', '^(%d+) (%d+)$')
    if at ~= count then
      begun[#begun + 1] = kind .. position
      begun[#begun + 1] = (tonumber(times) or 0) + 1 .. ' ' .. count
    end
  end
end
if #begun > 2 then redis.call(unpack(begun)) end
return refused
`
