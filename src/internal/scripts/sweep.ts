import type { Script } from "../../Redis.ts"

/**
 * Ends generations of marks whose time is over, for a group that begins nothing any more; while it does, `begin` ends them.
 *
 * KEYS: marks, old marks. ARGV: ms to keep marks that do not say it. Reply: 1 when something was removed, else 0.
 *
 * UNLINK frees in the background; an expiry time would free millions of marks at once, and hold up the server.
 */
export const sweep: Script = {
  name: "sweep",
  lua: `
local marks, old = KEYS[1], KEYS[2]
local keep = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key = redis.call('EXISTS', marks) == 1 and marks or old
if redis.call('EXISTS', key) == 0 then return 0 end
-- It passes when memory is full and lets the rest pass.
redis.call('HDEL', key, 'none')
local value = redis.call('HGET', key, '')
local started = value and tonumber(string.sub(value, 1, 13)) or now
if value then keep = tonumber(string.sub(value, 15)) or keep end
local fresh = string.format('%013.0f', now) .. ' ' .. keep
if now - started < keep then
  if not value then redis.call('HSET', key, '', fresh) end
  return 0
end
redis.call('UNLINK', old)
if key == marks then
  redis.call('RENAME', marks, old)
  redis.call('HSET', old, '', fresh)
end
return 1
`
}
