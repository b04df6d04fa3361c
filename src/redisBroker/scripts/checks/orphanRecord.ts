import { idempotentScript } from "../../script.ts"
import { isRegistered } from "../parts/isRegistered.ts"

/**
 * Whether a record is kept for a group that is gone: it is not registered, and has neither a floor nor a message that is ready again. Repair
 * removes the record.
 *
 * KEYS: groups, floors of the group, retries of the group, the record.
 * ARGV: `check` or `repair`, group.
 * Reply: 1 when it is so, else 0.
 */
export const orphanRecord = idempotentScript("orphanRecord")`
local groups, floors, retries, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local step, group = ARGV[1], ARGV[2]
${isRegistered}
if redis.call('EXISTS', record) == 0 or redis.call('EXISTS', floors) == 1 or redis.call('EXISTS', retries) == 1 then return 0 end
if isRegistered(groups, group) then return 0 end
if step == 'repair' then redis.call('UNLINK', record) end
return 1
`
