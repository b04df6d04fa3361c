import { idempotentScript } from "../../script.ts"
import { counters } from "../../counters.ts"
import { wrongType } from "../parts/preconditions.ts"
import { count } from "../parts/counting.ts"
import { lost } from "../parts/gate.ts"

/**
 * Whether a delivery is pending, idle for long, and its message is gone. Repair ends it: there is nothing to be handled.
 *
 * The stamp of its consumer changes: a late acknowledgement of it would free the ordering key of the next message.
 *
 * KEYS: the stream, counts, taken of the group.
 * ARGV: `check` or `repair`, group, channel, position, ms it must be idle, 1 for a retry stream (else 0).
 * Reply: 1 when it is so, else 0.
 */
export const ghostDelivery = idempotentScript("ghostDelivery")`
local stream, counts, taken = unpack(KEYS)
local step, group, channel, position, idle, isRetry = unpack(ARGV)
${wrongType}${count}${lost}
if redis.call('TYPE', stream).ok ~= 'stream' or #redis.call('XRANGE', stream, position, position) > 0 then return 0 end
local lease = redis.call('XPENDING', stream, group, position, position, 1)[1]
if not lease or lease[3] < tonumber(idle) then return 0 end
if step == 'repair' then
  local problem = wrongType(counts, 'hash') or wrongType(taken, 'hash')
  if problem then return problem end
  local ended = redis.call('XACK', stream, group, position)
  lost(lease[2])
  count('${counters.settledRetries}', group .. '\\n' .. channel, ended * tonumber(isRetry))
end
return 1
`
