import type { Script } from "../../../Redis.ts"

/**
 * Tells that a member is alive, and names those of its group that have been silent for so long (a lease: what they hold has expired,
 * or will within one more lease).
 *
 * KEYS: members of the group. ARGV: member (its name, and what it reads), time in ms. Reply: the silent members.
 *
 * Without memory nobody can write that he lives: then all seem silent, which makes the others look in vain, and no more.
 */
export const heartbeat: Script = {
  name: "heartbeat",
  lua: `
local members = KEYS[1]
local member, silence = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- It passes when memory is full and lets the rest pass: who cannot be heard would be taken for lost.
redis.pcall('ZREM', members, '')
redis.pcall('ZADD', members, now, member)
return redis.call('ZRANGEBYSCORE', members, '-inf', now - silence)
`
}
