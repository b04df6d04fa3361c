import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { versioning } from "../parts/registryVersion.ts"

/**
 * How a channel is broken: `log` when it has one and is not registered, `name` when it is registered and has none, `limits` when its limits
 * are still those that cannot be read.
 *
 * KEYS: meta, channels, log. ARGV: `look` or `mend`, channel, what is looked for, limits. Reply: 1 when it is so, else 0.
 *
 * `log` and `name` are mended by the script `channel`, which does both in one step; here only the limits are.
 */
export const brokenChannel: Script = {
  name: "brokenChannel",
  lua: `
local meta, channels, log = KEYS[1], KEYS[2], KEYS[3]
local step, name, kind, limits = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${checking}
${versioning}
local known, found = redis.call('HGET', channels, name), redis.call('TYPE', log).ok
if kind == 'log' then return found == 'stream' and not known and 1 or 0 end
if kind == 'name' then return found == 'none' and known and 1 or 0 end
if known ~= limits then return 0 end
if step == 'mend' then
  local problem = wrongType(meta, 'hash')
  if problem then return problem end
  redis.call('HSET', channels, name, '')
  newVersion()
end
return 1
`
}
