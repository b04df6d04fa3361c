import { idempotentScript } from "../../script.ts"

/**
 * Whether an entry of the pauses is still the one that cannot be read. Repair removes it: nothing keeps it.
 *
 * KEYS: paused.
 * ARGV: `check` or `repair`, field, value.
 * Reply: 1 when it is so, else 0.
 */
export const brokenPause = idempotentScript("brokenPause")`
local paused = KEYS[1]
local step, field, value = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', paused, field) ~= value then return 0 end
if step == 'repair' then redis.call('HDEL', paused, field) end
return 1
`
