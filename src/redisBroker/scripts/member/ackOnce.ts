import { script } from "../../script.ts"
import { counters } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { onceKeys } from "../parts/onceKeys.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Acknowledges deliveries of one stream and records their idempotency keys as done, each only while its key has this token. The token is
 * the fence: another delivery with this key, and the same one after its lease expired, begin with another token.
 *
 * KEYS: the stream, once, older once, counts; where some were taken over from lost consumers: trials of the group and channel.
 * ARGV: group, channel, 1 for a retry stream (else 0), ms for which keys stay done, then for each delivery: position, key, token,
 * how often it was taken over from a lost consumer (-1: a renewal found its entry gone).
 * Reply: for each delivery 1 (done), 0 (the key has another token, or none) or 2 (the key was done before).
 *
 * Writes: XACK comes first. It passes when memory is full, and lets the rest pass.
 */
export const ackOnce = script("ackOnce")`
local stream, once, older, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, account, keep = ARGV[1], ARGV[1] .. '\\n' .. ARGV[2], tonumber(ARGV[4])
${wrongType}${count}${clock}${onceKeys}
local problem = wrongType(counts, 'hash') or KEYS[5] and wrongType(KEYS[5], 'hash')
if problem then return problem end
local names, wanted, crashed, gone = {}, 0, 0, 0
for i = 6, #ARGV, 4 do
  wanted = wanted + 1
  names[wanted] = ARGV[i]
end
local now = clock()
local current = redis.call('HMGET', once, '', unpack(names))
local started, last = spanOf(current[1], now)
local done = millis(now + keep)
local ack, record, reply, size = {'XACK', stream, group}, {'HSET', once, '', headOf(started, math.max(last, now + keep))}, {}, 0
for i = 1, wanted do
  local value = current[i + 1] or redis.call('HGET', older, names[i])
  if isDone(value) then
    reply[i] = 2
  elseif tokenOf(value) == ARGV[i * 4 + 3] then
    reply[i] = 1
    size = size + 1
    local takeovers = tonumber(ARGV[i * 4 + 4])
    if takeovers < 0 then gone = gone + 1 else crashed = crashed + takeovers end
    ack[size + 3] = ARGV[i * 4 + 1]
    record[size * 2 + 3] = names[i]
    record[size * 2 + 4] = done
  else
    reply[i] = 0
  end
end
if size > 0 then
  local acked = redis.call(unpack(ack)) + gone
  if KEYS[5] then
    for i = 4, size + 3 do redis.call('HDEL', KEYS[5], (ARGV[3] == '1' and 'r' or 'l') .. ack[i]) end
  end
  redis.call(unpack(record))
  count('${counters.acked}', account, acked)
  count('${counters.settledRetries}', account, acked * tonumber(ARGV[3]))
  if acked == size then count('${counters.crashed}', account, crashed) end
end
return reply
`
