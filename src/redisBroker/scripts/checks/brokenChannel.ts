import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { newVersion } from "../parts/registryVersion.ts"

/**
 * How a channel is broken: `log` when it has a log and is not registered; `name` when it is registered and has none; `limits` when its limits
 * are still the ones that cannot be read.
 *
 * KEYS: meta, channels, log.
 * ARGV: `check` or `repair`, channel, which of the three, limits.
 * Reply: 1 when it is so, else 0.
 *
 * The script `createChannel` repairs `log` and `name`, both in one step; this one repairs the limits only.
 */
export const brokenChannel = idempotentScript("brokenChannel")`
local meta, channels, log = KEYS[1], KEYS[2], KEYS[3]
local step, name, kind, limits = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${wrongType}${newVersion}
local known, found = redis.call('HGET', channels, name), redis.call('TYPE', log).ok
if kind == 'log' then return found == 'stream' and not known and 1 or 0 end
if kind == 'name' then return found == 'none' and known and 1 or 0 end
if known ~= limits then return 0 end
if step == 'repair' then
  local problem = wrongType(meta, 'hash')
  if problem then return problem end
  redis.call('HSET', channels, name, '')
  newVersion()
end
return 1
`
