import { idempotentScript } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"
import { wrongType } from "../parts/preconditions.ts"
import { isRegistered } from "../parts/isRegistered.ts"
import { openRetries } from "../parts/retryStream.ts"
import { clock } from "../parts/time.ts"

/**
 * Whether a body has no due time. Repair makes it due at once; where it waits for a group, it makes sure that the group will read it.
 *
 * KEYS: waiting, bodies, retry stream, retries of the group, meta, groups, counts.
 * ARGV: `check` or `repair`, group ("": it is scheduled), channel, id, events channel.
 * Reply: 1 when it is so; 2 when so of a group that is not registered (it may be being removed: that is not repaired); else 0.
 */
export const bodyWithoutTime = idempotentScript("bodyWithoutTime")`
local waiting, bodies, retry, retries, meta, groups, counts = unpack(KEYS)
local step, group, channel, id, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
${wrongType}${isRegistered}${openRetries}${clock}
local member = group .. '\\n' .. channel .. '\\n' .. id
if redis.call('HEXISTS', bodies, id) == 0 or redis.call('ZSCORE', waiting, member) then return 0 end
if group ~= '' and not isRegistered(groups, group) then return 2 end
if step == 'repair' then
  local problem = wrongType(retry, 'stream') or wrongType(retries, 'set') or wrongType(meta, 'hash') or wrongType(counts, 'hash')
  if problem then return problem end
  redis.call('ZADD', waiting, clock(), member)
  if group ~= '' then openRetries(redis.call('EXISTS', retry) == 1, retry, retries, group, channel) end
  redis.call('PUBLISH', events, '${signalEvents.due}')
end
return 1
`
