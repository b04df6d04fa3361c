import type { Script } from "../../../Redis.ts"
import { marking } from "../parts/marking.ts"

/**
 * Begins deliveries by key: marks each key that is neither done nor being handled by somebody else. For a key that has this token
 * already it starts the time anew; so it renews, too, and doing it twice changes nothing.
 *
 * KEYS: marks, old marks. ARGV: lease in ms, ms a done key is remembered, token, then marks, each once.
 * Reply: for each mark 1 (mine), 0 (done) or -1 (busy).
 *
 * After the time a done key is remembered, marks become the old ones, when no old one counts any more; these go. Only that removes
 * marks: each says itself until when it counts. The first write is one that passes when memory is full and lets the rest pass: what
 * cannot be begun could not be acknowledged either.
 */
export const beginOnce: Script = {
  name: "beginOnce",
  lua: `
local marks, old = KEYS[1], KEYS[2]
local lease, keep, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local names = {unpack(ARGV, 4)}
${marking}
local now = clock()
redis.call('HDEL', marks, 'none')
local started, last = spanOf(redis.call('HGET', marks, ''), now)
if now - started >= keep then
  local _, over = spanOf(redis.call('HGET', old, ''), now)
  if over <= now then
    redis.call('UNLINK', old)
    redis.call('RENAME', marks, old)
    started, last = now, now
  end
end
local current = redis.call('HMGET', marks, unpack(names))
local earlier = redis.call('EXISTS', old) == 1 and redis.call('HMGET', old, unpack(names)) or {}
-- Whoever is late with a renewal may still finish, when nobody has taken over.
local command = {'HSET', marks, '', headOf(started, math.max(last, now + 2 * lease))}
local mine = millis(now + lease) .. ' ' .. token
local reply, size = {}, 4
for i = 1, #names do
  local value = current[i] or earlier[i]
  local counts = (timeOf(value) or 0) > now
  if counts and isDone(value) then
    reply[i] = 0
  elseif counts and tokenOf(value) ~= token then
    reply[i] = -1
  else
    reply[i] = 1
    command[size + 1] = names[i]
    command[size + 2] = mine
    size = size + 2
  end
end
redis.call(unpack(command))
return reply
`
}
