import type { Script } from "../../Redis.ts"

/**
 * Stores the definition of a recurring message. With the same recurrence and channel as before it keeps its next tick, so that a restart of the
 * program that defines it skips none.
 *
 * KEYS: recurring, ticks. ARGV: events channel, key, recurrence and channel, body, time of the next tick. Reply: the next tick.
 */
export const recur: Script = {
  name: "recur",
  lua: `
local recurring, ticks = KEYS[1], KEYS[2]
local events, key, head, body, at = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('TYPE', ticks).ok
if found ~= 'none' and found ~= 'zset' then return redis.error_reply('WRONGTYPE ' .. ticks .. ' is a ' .. found) end
local before = redis.call('HGET', recurring, key)
local stays = before and string.sub(before, 1, #head + 1) == head .. '\\n' and redis.call('ZSCORE', ticks, key)
redis.call('HSET', recurring, key, head .. '\\n' .. body)
if stays then return stays end
redis.call('ZADD', ticks, at, key)
redis.call('PUBLISH', events, 'tick')
return at
`
}
