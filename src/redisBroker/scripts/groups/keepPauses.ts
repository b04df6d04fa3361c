import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Records which pauses a member keeps.
 *
 * KEYS: resting of the group.
 * ARGV: member, ids of the pauses with spaces between them ("": none).
 * Reply: 1.
 *
 * Writes: HDEL comes first. It passes when memory is full, and lets the rest pass.
 */
export const keepPauses = idempotentScript("keepPauses")`
local resting = KEYS[1]
local member, ids = ARGV[1], ARGV[2]
${wrongType}
local problem = wrongType(resting, 'hash')
if problem then return problem end
redis.call('HDEL', resting, member)
if ids ~= '' then redis.call('HSET', resting, member, ids) end
return 1
`
