import type { Script } from "../../Redis.ts"

/**
 * Moves waiting messages that are due into the streams they wait for. Whoever comes second finds them gone.
 *
 * KEYS: waiting, bodies, target streams. ARGV: for each message: member, index of its target in KEYS.
 * Reply: {moved, removed without a readable body}.
 *
 * The XADD comes first: it is the write that can be refused, and then the message still waits.
 */
export const promote: Script = {
  name: "promote",
  lua: `
local waiting, bodies = KEYS[1], KEYS[2]
local total = #ARGV
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved, broken = 0, 0
for i = 1, total, 2 do
  local member, target = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
  local at = tonumber(redis.call('ZSCORE', waiting, member) or 'inf')
  if at <= now then
    local body = redis.call('HGET', bodies, member)
    local separator = body and string.find(body, '\\n', 1, true)
    if separator then
      redis.call('XADD', target, '*', 'm', string.sub(body, 1, separator - 1), 'p', string.sub(body, separator + 1))
      moved = moved + 1
    else
      broken = broken + 1
    end
    redis.call('ZREM', waiting, member)
    redis.call('HDEL', bodies, member)
  end
end
return {moved, broken}
`
}
