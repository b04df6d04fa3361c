import type { Script } from "../../Redis.ts"

/**
 * Lists what a group may have to read, if anything has changed since the caller looked last.
 *
 * KEYS: meta, channels, groups, retries of the group. ARGV: version the caller knows ("": none), fields of the group.
 * Reply: {version} when nothing changed, else {version, channels, channels with a retry stream, 1 for each field that is
 * registered and 0 for each that is not}.
 */
export const sources: Script = {
  name: "sources",
  lua: `
local meta, channels, groups, retries = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local known = ARGV[1]
local version = redis.call('HGET', meta, 'v') or '0'
if version == known then return {version} end
local registered = {}
for i = 2, #ARGV do registered[i - 1] = redis.call('HEXISTS', groups, ARGV[i]) end
return {version, redis.call('HKEYS', channels), redis.call('SMEMBERS', retries), registered}
`
}
