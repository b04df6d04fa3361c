import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { versioning } from "../parts/registryVersion.ts"

/**
 * Whether a retry stream is there that its group does not know of. Mending lists it.
 *
 * KEYS: retry stream, retries of the group, meta. ARGV: `look` or `mend`, group, channel, events channel.
 * Reply: 1 when it is so, else 0.
 */
export const unlistedRetries: Script = {
  name: "unlistedRetries",
  lua: `
local retry, retries, meta = KEYS[1], KEYS[2], KEYS[3]
local step, group, channel, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${checking}
${versioning}
if redis.call('TYPE', retry).ok ~= 'stream' or redis.call('SISMEMBER', retries, channel) == 1 then return 0 end
if step == 'mend' then
  local problem = wrongType(meta, 'hash')
  if problem then return problem end
  redis.call('SADD', retries, channel)
  newVersion()
  redis.call('PUBLISH', events, 'retry\\n' .. group .. '\\n' .. channel)
end
return 1
`
}
