import { idempotentScript } from "../../script.ts"
import { onceKeys } from "../parts/onceKeys.ts"
import { clock } from "../parts/time.ts"

/**
 * Begins deliveries by their idempotency keys: takes each key that is neither done nor taken by another token. A key that has this token
 * already gets its time anew, so the script also renews, and a second run changes nothing.
 *
 * KEYS: once, older once.
 * ARGV: lease in ms, ms for which a done key counts, token, then keys, each once.
 * Reply: for each key 1 (taken), 0 (done) or -1 (busy).
 *
 * When the keys of `once` are older than the time for which a done key counts, and none in `older` counts any more, `once` becomes
 * `older`. Only that removes keys: each has the time until which it counts.
 *
 * Writes: HDEL comes first. It passes when memory is full, and lets the rest pass: a delivery that cannot begin could not be acknowledged
 * either.
 */
export const beginOnce = idempotentScript("beginOnce")`
local once, older = KEYS[1], KEYS[2]
local lease, keep, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local names = {unpack(ARGV, 4)}
${clock}${onceKeys}
local now = clock()
redis.call('HDEL', once, 'none')
local started, last = spanOf(redis.call('HGET', once, ''), now)
if now - started >= keep then
  local _, over = spanOf(redis.call('HGET', older, ''), now)
  if over <= now then
    redis.call('UNLINK', older)
    redis.call('RENAME', once, older)
    started, last = now, now
  end
end
local current = redis.call('HMGET', once, unpack(names))
local earlier = redis.call('EXISTS', older) == 1 and redis.call('HMGET', older, unpack(names)) or {}
-- A consumer whose renewal is late may still finish, when no other has taken over.
local command = {'HSET', once, '', headOf(started, math.max(last, now + 2 * lease))}
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
