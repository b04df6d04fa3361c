import type { Script } from "../../../Redis.ts"

/**
 * Takes back that the handler of a delivery was begun: if its consumer is lost from now on, it was not this delivery.
 *
 * KEYS: trials of the group and channel. ARGV: field, delivery count. Reply: 1, or 0 when it was not so.
 *
 * HDEL passes when memory is full, and lets the rest pass.
 */
export const acquit: Script = {
  name: "acquit",
  lua: `
local trials = KEYS[1]
local field, count = ARGV[1], ARGV[2]
local times, at = string.match(redis.call('HGET', trials, field) or '', '^(%d+) (%d+)$')
if at ~= count then return 0 end
redis.call('HDEL', trials, field)
if tonumber(times) > 1 then redis.call('HSET', trials, field, times - 1 .. ' 0') end
return 1
`
}
