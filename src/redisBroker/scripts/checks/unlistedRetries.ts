import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { listRetries } from "../parts/retryStream.ts"

/**
 * Whether a retry stream is missing in the list of its group. Repair lists it.
 *
 * KEYS: retry stream, retries of the group, meta.
 * ARGV: `check` or `repair`, group, channel, events channel.
 * Reply: 1 when it is so, else 0.
 */
export const unlistedRetries = idempotentScript("unlistedRetries")`
local retry, retries, meta = KEYS[1], KEYS[2], KEYS[3]
local step, group, channel, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${wrongType}${listRetries}
if redis.call('TYPE', retry).ok ~= 'stream' or redis.call('SISMEMBER', retries, channel) == 1 then return 0 end
if step == 'repair' then
  local problem = wrongType(meta, 'hash')
  if problem then return problem end
  listRetries(retries, group, channel)
end
return 1
`
