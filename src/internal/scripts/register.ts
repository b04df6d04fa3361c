import type { Script } from "../../Redis.ts"

/**
 * Registers a group for a selector. From then on nothing that the selector matches is trimmed before the group has
 * acknowledged it.
 *
 * KEYS: meta, groups. ARGV: fields of the group (group and pattern or name). Reply: how many are new.
 */
export const register: Script = {
  name: "register",
  lua: `
local meta, groups = KEYS[1], KEYS[2]
local total = #ARGV
local new = 0
for i = 1, total do new = new + redis.call('HSETNX', groups, ARGV[i], '') end
if new > 0 then
  -- As in the script "channel": a version never comes again.
  if redis.call('HEXISTS', meta, 'v') == 0 then
    local time = redis.call('TIME')
    redis.call('HSET', meta, 'v', time[1] .. string.sub('00000' .. time[2], -6))
  end
  redis.call('HINCRBY', meta, 'v', 1)
end
return new
`
}
