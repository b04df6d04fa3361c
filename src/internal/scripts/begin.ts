import type { Script } from "../../Redis.ts"

/**
 * Begins deliveries by key: marks each key that is neither done nor being handled by somebody else. For a key that has this token
 * already it starts the time anew; so it renews, too, and doing it twice changes nothing.
 *
 * KEYS: marks, old marks. ARGV: lease in ms, ms a done key is remembered at least, token, then marks, each once.
 * Reply: for each mark 1 (mine), 0 (done) or -1 (busy).
 *
 * The value of a mark is empty when it is done, else 13 digits (until when), a space and the token. The field '' holds the beginning
 * of this generation of marks and its time; after that the generation becomes the old one, and the old one goes. The first write
 * is one that passes when memory is full and lets the rest pass: what cannot be begun could not be acknowledged either.
 */
export const begin: Script = {
  name: "begin",
  lua: `
local marks, old = KEYS[1], KEYS[2]
local lease, keep, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local names = {unpack(ARGV, 4)}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', marks, 'none')
local generation = redis.call('HGET', marks, '')
local started = generation and tonumber(string.sub(generation, 1, 13)) or now
if now - started >= keep then
  redis.call('UNLINK', old)
  redis.call('RENAME', marks, old)
  started = now
end
local current = redis.call('HMGET', marks, unpack(names))
local earlier = redis.call('EXISTS', old) == 1 and redis.call('HMGET', old, unpack(names)) or {}
local mine = string.format('%013.0f', now + lease) .. ' ' .. token
local reply, command = {}, {'HSET', marks, '', string.format('%013.0f', started) .. ' ' .. keep}
local size = 4
for i = 1, #names do
  local value = current[i] or earlier[i]
  if value == '' then
    reply[i] = 0
  elseif value and string.sub(value, 15) ~= token and (tonumber(string.sub(value, 1, 13)) or 0) > now then
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
