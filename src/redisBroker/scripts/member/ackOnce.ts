import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"
import { marking } from "../parts/marking.ts"

/**
 * Acknowledges deliveries of one stream and remembers their keys as done, each only while its mark has this token. The mark is the
 * fence: whoever handles another delivery with this key, or the same after its lease expired, has another token.
 *
 * KEYS: the stream, marks, old marks, counts; where some were taken over from lost consumers: trials of the group and channel.
 * ARGV: group, channel, 1 when it is a retry stream (else 0), ms the keys are remembered, then for each delivery: position, mark,
 * token, how often it was taken over from a lost consumer (-1: a renewal found its entry gone).
 * Reply: for each delivery 1 (done), 0 (the mark is another's, or gone) or 2 (the key was done before).
 *
 * XACK is the first write: it passes when memory is full, and lets the rest pass.
 */
export const ackOnce: Script = {
  name: "ackOnce",
  lua: `
local stream, marks, old, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, account, keep = ARGV[1], ARGV[1] .. '\\n' .. ARGV[2], tonumber(ARGV[4])
${checking}
${counting}
${marking}
local problem = wrongType(counts, 'hash') or KEYS[5] and wrongType(KEYS[5], 'hash')
if problem then return problem end
local names, wanted, crashed, gone = {}, 0, 0, 0
for i = 6, #ARGV, 4 do
  wanted = wanted + 1
  names[wanted] = ARGV[i]
end
local now = clock()
local current = redis.call('HMGET', marks, '', unpack(names))
local started, last = spanOf(current[1], now)
local mark = millis(now + keep)
local ack, done, reply, size = {'XACK', stream, group}, {'HSET', marks, '', headOf(started, math.max(last, now + keep))}, {}, 0
for i = 1, wanted do
  local value = current[i + 1] or redis.call('HGET', old, names[i])
  if isDone(value) then
    reply[i] = 2
  elseif tokenOf(value) == ARGV[i * 4 + 3] then
    reply[i] = 1
    size = size + 1
    local takeovers = tonumber(ARGV[i * 4 + 4])
    if takeovers < 0 then gone = gone + 1 else crashed = crashed + takeovers end
    ack[size + 3] = ARGV[i * 4 + 1]
    done[size * 2 + 3] = names[i]
    done[size * 2 + 4] = mark
  else
    reply[i] = 0
  end
end
if size > 0 then
  local acked = redis.call(unpack(ack)) + gone
  if KEYS[5] then
    for i = 4, size + 3 do redis.call('HDEL', KEYS[5], (ARGV[3] == '1' and 'r' or 'l') .. ack[i]) end
  end
  redis.call(unpack(done))
  count('a', account, acked)
  count('z', account, acked * tonumber(ARGV[3]))
  if acked == size then count('c', account, crashed) end
end
return reply
`
}
