import { idempotentScript } from "../../script.ts"

/**
 * Whether a member of `waiting` has no body. Repair removes it: there is nothing to be delivered.
 *
 * KEYS: waiting, bodies (waiting again where the member names none).
 * ARGV: `check` or `repair`, member, id.
 * Reply: 1 when it is so, else 0.
 */
export const timeWithoutBody = idempotentScript("timeWithoutBody")`
local waiting, bodies = KEYS[1], KEYS[2]
local step, member, id = ARGV[1], ARGV[2], ARGV[3]
if not redis.call('ZSCORE', waiting, member) then return 0 end
if bodies ~= waiting and redis.call('HEXISTS', bodies, id) == 1 then return 0 end
if step == 'repair' then redis.call('ZREM', waiting, member) end
return 1
`
