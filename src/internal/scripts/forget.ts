import type { Script } from "../../Redis.ts"

/**
 * Removes the definition of a recurring message. KEYS: ticks, recurring. ARGV: key. Reply: 1 when there was one, else 0.
 */
export const forget: Script = {
  name: "forget",
  lua: `
local ticks, recurring = KEYS[1], KEYS[2]
local key = ARGV[1]
redis.call('ZREM', ticks, key)
return redis.call('HDEL', recurring, key)
`
}
