import { script } from "../../script.ts"
import { counters } from "../../counters.ts"
import { count } from "../parts/counting.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Acknowledges deliveries that are surely held, and counts those that XACK removes; so a second run counts nothing.
 *
 * KEYS: counts, streams.
 * ARGV: group, then for each stream: channel, number of duplicates among its deliveries, 1 for a retry stream (else 0), number of
 * positions, positions (at most 5,000).
 * Reply: for each stream the number of acknowledged deliveries, or its error.
 *
 * Writes: the type of `counts` is checked first. XACK passes when memory is full, and lets the counting pass.
 */
export const ack = script("ack")`
local counts, group = KEYS[1], ARGV[1]
local streams, args, total = KEYS, ARGV, #ARGV
${wrongType}${count}
local problem = wrongType(counts, 'hash')
if problem then return problem end
local reply, at, index = {}, 2, 2
while at <= total do
  local account, duplicates = group .. '\\n' .. args[at], tonumber(args[at + 1])
  local isRetry, size = tonumber(args[at + 2]), tonumber(args[at + 3])
  local acked = redis.pcall('XACK', streams[index], group, unpack(args, at + 4, at + 3 + size))
  if type(acked) == 'table' then
    reply[index - 1] = acked.err
  else
    reply[index - 1] = acked
    count('${counters.acked}', account, acked)
    count('${counters.settledRetries}', account, acked * isRetry)
    if acked == size then count('${counters.duplicates}', account, duplicates) end
  end
  at = at + 4 + size
  index = index + 1
end
return reply
`
