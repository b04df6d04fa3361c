import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { windowOf } from "../parts/window.ts"

/**
 * Removes a message that waits for its first delivery, and the deduplication window it has opened, so that another message may take its id.
 *
 * KEYS: waiting, bodies of the channel (of no group), window key, answer of this call.
 * ARGV: member of waiting, id, name of the window key, ms for which the answer is kept.
 * Reply: 1 when it still waited, else 0; the name of its window key, when that is another: nothing was done.
 *
 * Writes: the first one passes when memory is full, and lets the rest pass.
 */
export const cancel = idempotentScript("cancel")`
local waiting, bodies, window, answer = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, id, named, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${wrongType}${windowOf}
local problem = wrongType(waiting, 'zset') or wrongType(bodies, 'hash')
  or wrongType(window, 'string') or wrongType(answer, 'string')
if problem then return problem end
local before = redis.call('GET', answer)
if before then return tonumber(before) end
local body = redis.call('HGET', bodies, id)
local _, call, key = windowOf(body or '')
if key and key ~= named then return key end
local removed, waited = redis.call('HDEL', bodies, id), redis.call('ZREM', waiting, member)
if removed == 0 or waited == 0 then return 0 end
if key and ownsWindow(window, call) then redis.call('DEL', window) end
redis.call('SET', answer, 1, 'PX', kept)
return 1
`
