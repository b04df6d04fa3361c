import { idempotentScript } from "../../script.ts"

/**
 * Takes back that the handler of a delivery has begun: if the consumer is lost from now on, this delivery is not the reason.
 *
 * KEYS: trials of the group and channel.
 * ARGV: field of the delivery, delivery count.
 * Reply: 1, or 0 when this hand-out had not begun.
 *
 * Writes: HDEL passes when memory is full, and lets the rest pass.
 */
export const endTrial = idempotentScript("endTrial")`
local trials = KEYS[1]
local field, count = ARGV[1], ARGV[2]
local times, at = string.match(redis.call('HGET', trials, field) or '', '^(%d+) (%d+)$')
if at ~= count then return 0 end
redis.call('HDEL', trials, field)
if tonumber(times) > 1 then redis.call('HSET', trials, field, times - 1 .. ' 0') end
return 1
`
