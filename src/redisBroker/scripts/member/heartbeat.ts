import { idempotentScript } from "../../script.ts"
import { clock } from "../parts/time.ts"

/**
 * Records that a member is alive, and names the members of its group that have been silent for a lease: what they hold has expired, or will
 * within one more lease.
 *
 * KEYS: members of the group.
 * ARGV: member (its name, and what it reads), silence in ms.
 * Reply: the silent members.
 *
 * Writes: none can be recorded when memory is full. Then all members seem silent, and others look in vain for what they hold, no more.
 */
export const heartbeat = idempotentScript("heartbeat")`
local members = KEYS[1]
local member, silence = ARGV[1], tonumber(ARGV[2])
${clock}
local now = clock()
-- It passes when memory is full and lets the rest pass: a member that is not heard counts as lost.
redis.pcall('ZREM', members, '')
redis.pcall('ZADD', members, now, member)
return redis.call('ZRANGEBYSCORE', members, '-inf', now - silence)
`
