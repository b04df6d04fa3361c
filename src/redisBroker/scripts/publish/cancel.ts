import type { Script } from "../../../Redis.ts"
import { windowsOfBodies } from "../parts/bodyFields.ts"
import { checking } from "../parts/checks.ts"

/**
 * Removes a message that waits for its first delivery, and the deduplication window it has opened: it will not come, so another may.
 *
 * KEYS: waiting, bodies of the channel (of no group), window key, what this call was told. ARGV: member, id, what the window key is the key of,
 * ms for which it is kept what the call was told.
 * Reply: 1 when it still waited, else 0; the key of its window, when that is another: nothing was done.
 *
 * The first write passes when memory is full, and lets the rest pass.
 */
export const cancel: Script = {
  name: "cancel",
  lua: `
local waiting, bodies, window, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, id, named, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${checking}
${windowsOfBodies}
local problem = wrongType(waiting, 'zset') or wrongType(bodies, 'hash')
  or wrongType(window, 'string') or wrongType(told, 'string')
if problem then return problem end
local before = redis.call('GET', told)
if before then return tonumber(before) end
local body = redis.call('HGET', bodies, id)
local _, call, key = windowOf(body or '')
if key and key ~= named then return key end
local there = redis.call('HDEL', bodies, id)
local waited = redis.call('ZREM', waiting, member)
if there == 0 or waited == 0 then return 0 end
if key and ownsWindow(window, call) then redis.call('DEL', window) end
redis.call('SET', told, 1, 'PX', kept)
return 1
`
}
