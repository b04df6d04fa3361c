import { script } from "../../script.ts"
import { counters } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { free } from "../parts/gate.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Acknowledges deliveries of one stream, and frees their ordering keys: the next message of each key becomes its head, and is handed over to
 * this consumer.
 *
 * KEYS: the stream, counts, taken of the group; log, retry stream, busy, lines and behind of the group and channel.
 * ARGV: group, consumer, channel, 1 for a retry stream (else 0), the stamp that the consumer knew when these deliveries began ("": none),
 * number of duplicates among them, number of deliveries, their positions, their ordering keys ("" where one has none).
 * Reply: {stamp, numbers of the refused ones, messages handed over, number of those that were gone from their stream}. A message is {kind
 * of its stream (`l` or `r`), position, fields}; one without fields is to be recovered.
 *
 * The same stamp as then means that nothing was taken over from the consumer since: it holds them all. After a change each one is checked.
 *
 * Writes: all types are checked first. XACK comes first. It passes when memory is full, and lets the rest pass.
 */
export const leave = script("leave")`
local stream, counts, taken, log, retry, busy, lines, behind = unpack(KEYS)
local group, consumer, channel, isRetry, known, duplicates = unpack(ARGV, 1, 6)
local args, size = ARGV, tonumber(ARGV[7])
${wrongType}${count}${free}
local problem = wrongType(stream, 'stream') or wrongType(counts, 'hash') or gateProblem()
if problem then return problem end
local stamp, refused = redis.call('HGET', taken, consumer), {}
local positions, keys = {unpack(args, 8, 7 + size)}, {unpack(args, 8 + size, 7 + 2 * size)}
if not stamp or stamp ~= known then
  local mine, keysOfMine = {}, {}
  for i = 1, size do
    local lease = redis.call('XPENDING', stream, group, positions[i], positions[i], 1)[1]
    if lease and lease[2] == consumer then
      mine[#mine + 1] = positions[i]
      keysOfMine[#mine] = keys[i]
    else
      refused[#refused + 1] = i
    end
  end
  positions, keys = mine, keysOfMine
end
if #positions > 0 then
  local acked = redis.call('XACK', stream, group, unpack(positions))
  local account = group .. '\\n' .. channel
  count('${counters.acked}', account, acked)
  count('${counters.settledRetries}', account, acked * tonumber(isRetry))
  if acked == size then count('${counters.duplicates}', account, tonumber(duplicates)) end
  if redis.call('EXISTS', lines) == 1 then
    local found, idle = redis.call('HMGET', lines, unpack(keys)), {}
    for i, key in ipairs(keys) do
      if found[i] then free(key) else idle[#idle + 1] = key end
    end
    keys = idle
  end
  if #keys > 0 then redis.call('SREM', busy, unpack(keys)) end
end
return {stamp, refused, handedOver, vanished}
`
