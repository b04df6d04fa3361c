import { script } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Removes the definition of a recurring message, and its next tick.
 *
 * KEYS: ticks, recurring.
 * ARGV: key, the definition it must have ("": any).
 * Reply: 1 when there was one, else 0.
 */
export const removeRecurring = script("removeRecurring")`
local ticks, recurring = KEYS[1], KEYS[2]
local key, wanted = ARGV[1], ARGV[2] or ''
${wrongType}
local problem = wrongType(ticks, 'zset') or wrongType(recurring, 'hash')
if problem then return problem end
if wanted ~= '' and redis.call('HGET', recurring, key) ~= wanted then return 0 end
redis.call('ZREM', ticks, key)
return redis.call('HDEL', recurring, key)
`
