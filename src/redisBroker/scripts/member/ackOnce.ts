import { script } from "../../script.ts"
import { counters } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { free, lost } from "../parts/gate.ts"
import { onceKeys } from "../parts/onceKeys.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Acknowledges deliveries of one stream and records their idempotency keys as done, each only while its key has this token. The token is
 * the fence: another delivery with this key, and the same one after its lease expired, begin with another token.
 *
 * KEYS: the stream, once, older once, counts; where some were taken over from lost consumers: trials of the group and channel; where
 * ordering keys count: taken of the group, log, retry stream, busy, lines and behind of the group and channel.
 * ARGV: group, channel, 1 for a retry stream (else 0), ms for which keys stay done, consumer, 1 where ordering keys count (else 0), then for
 * each delivery: position, key, token, how often it was taken over from a lost consumer (-1: a renewal found its entry gone), ordering key
 * ("" where it has none).
 * Reply: for each delivery 1 (done), 0 (the key has another token, or none) or 2 (the key was done before); where ordering keys count {these,
 * messages handed over, number of those that were gone}, as `leave` has them.
 *
 * The token does not tell whether another consumer has taken the delivery over and not begun it. That one has lost it with this. If it has
 * settled the delivery already, the ordering key is not this one's to free: it is free, or the message waits for its retry as its head.
 *
 * Writes: XACK comes first. It passes when memory is full, and lets the rest pass.
 */
export const ackOnce = script("ackOnce")`
local stream, once, older, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, account, keep = ARGV[1], ARGV[1] .. '\\n' .. ARGV[2], tonumber(ARGV[4])
local consumer, isOrdered = ARGV[5], ARGV[6] == '1'
local taken, log, retry, busy, lines, behind = unpack(KEYS, #KEYS - 5)
local trials = KEYS[5] and #KEYS ~= 10 and KEYS[5]
${wrongType}${count}${clock}${onceKeys}${free}${lost}
local problem = wrongType(stream, 'stream') or wrongType(counts, 'hash') or trials and wrongType(trials, 'hash')
  or isOrdered and (wrongType(taken, 'hash') or gateProblem())
if problem then return problem end
local names, wanted, crashed, gone = {}, 0, 0, 0
for i = 8, #ARGV, 5 do
  wanted = wanted + 1
  names[wanted] = ARGV[i]
end
local now = clock()
local current = redis.call('HMGET', once, '', unpack(names))
local started, last = spanOf(current[1], now)
local done = millis(now + keep)
local losers, freed = {}, {}
local ack, record, reply, size = {'XACK', stream, group}, {'HSET', once, '', headOf(started, math.max(last, now + keep))}, {}, 0
for i = 1, wanted do
  local value = current[i + 1] or redis.call('HGET', older, names[i])
  if isDone(value) then
    reply[i] = 2
  elseif tokenOf(value) == ARGV[i * 5 + 4] then
    reply[i] = 1
    size = size + 1
    local takeovers = tonumber(ARGV[i * 5 + 5])
    if takeovers < 0 then gone = gone + 1 else crashed = crashed + takeovers end
    local position = ARGV[i * 5 + 2]
    ack[size + 3] = position
    if isOrdered then
      local lease = redis.call('XPENDING', stream, group, position, position, 1)[1]
      if lease and lease[2] ~= consumer then losers[#losers + 1] = lease[2] end
      if (lease or takeovers < 0) and ARGV[i * 5 + 6] ~= '' then freed[#freed + 1] = ARGV[i * 5 + 6] end
    end
    record[size * 2 + 3] = names[i]
    record[size * 2 + 4] = done
  else
    reply[i] = 0
  end
end
if size > 0 then
  local acked = redis.call(unpack(ack)) + gone
  for _, owner in ipairs(losers) do lost(owner) end
  for _, key in ipairs(freed) do free(key) end
  if trials then
    for i = 4, size + 3 do redis.call('HDEL', trials, (ARGV[3] == '1' and 'r' or 'l') .. ack[i]) end
  end
  redis.call(unpack(record))
  count('${counters.acked}', account, acked)
  count('${counters.settledRetries}', account, acked * tonumber(ARGV[3]))
  if acked == size then count('${counters.crashed}', account, crashed) end
end
if isOrdered then return {reply, handedOver, vanished} end
return reply
`
