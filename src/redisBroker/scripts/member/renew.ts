import { idempotentScript } from "../../script.ts"

/**
 * Renews leases: sets the idle time of each entry to 0 while this consumer holds this very hand-out.
 *
 * KEYS: the stream.
 * ARGV: group, consumer, then for each delivery: position, delivery count.
 * Reply: the refused positions, and those whose entry is gone from the stream. These have left the pending entries of the group with this
 * command, so no other consumer can get them any more.
 *
 * JUSTID keeps the delivery count, which is the token of the lease.
 */
export const renew = idempotentScript("renew")`
local stream = KEYS[1]
local group, consumer = ARGV[1], ARGV[2]
local refused, held, gone = {}, {}, {}
for i = 3, #ARGV, 2 do
  local lease = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if not lease or lease[2] ~= consumer or lease[4] ~= tonumber(ARGV[i + 1]) then
    refused[#refused + 1] = ARGV[i]
  else
    held[#held + 1] = ARGV[i]
  end
end
for i = 1, #held, 1000 do
  local command = {'XCLAIM', stream, group, consumer, '0'}
  for j = i, math.min(i + 999, #held) do command[#command + 1] = held[j] end
  command[#command + 1] = 'JUSTID'
  local renewed = {}
  for _, position in ipairs(redis.call(unpack(command))) do renewed[position] = true end
  for j = i, math.min(i + 999, #held) do
    if not renewed[held[j]] then gone[#gone + 1] = held[j] end
  end
end
return {refused, gone}
`
