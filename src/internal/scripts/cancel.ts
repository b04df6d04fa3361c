import type { Script } from "../../Redis.ts"

/**
 * Removes a message that waits for its first delivery, and its deduplication window: it will not come, so it may be published again.
 *
 * KEYS: waiting, bodies of the channel (of no group), window key. ARGV: member, id. Reply: 1 when it still waited, else 0.
 */
export const cancel: Script = {
  name: "cancel",
  lua: `
local waiting, bodies, window = KEYS[1], KEYS[2], KEYS[3]
local member, id = ARGV[1], ARGV[2]
local there = redis.call('HDEL', bodies, id)
local waited = redis.call('ZREM', waiting, member)
if there == 0 or waited == 0 then return 0 end
redis.call('DEL', window)
return 1
`
}
