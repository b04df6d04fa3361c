import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"

/**
 * Acknowledges deliveries that are surely held, and counts them: what XACK removes, so a second run counts nothing.
 *
 * KEYS: counts, streams. ARGV: group, then for each stream: channel, how many of its deliveries are duplicates, 1 when it is a retry stream (else 0), number of positions, positions (at most 5,000).
 * Reply: for each stream how many were acknowledged, or what was wrong with it.
 *
 * The type of `counts` is checked first. XACK passes when memory is full and lets the counting pass.
 */
export const ack: Script = {
  name: "ack",
  lua: `
local counts, group = KEYS[1], ARGV[1]
local streams, args, total = KEYS, ARGV, #ARGV
${checking}
${counting}
local problem = wrongType(counts, 'hash')
if problem then return problem end
local reply, at, index = {}, 2, 2
while at <= total do
  local account, duplicates = group .. '\\n' .. args[at], tonumber(args[at + 1])
  local again, size = tonumber(args[at + 2]), tonumber(args[at + 3])
  local acked = redis.pcall('XACK', streams[index], group, unpack(args, at + 4, at + 3 + size))
  if type(acked) == 'table' then
    reply[index - 1] = acked.err
  else
    reply[index - 1] = acked
    count('a', account, acked)
    count('z', account, acked * again)
    if acked == size then count('u', account, duplicates) end
  end
  at = at + 4 + size
  index = index + 1
end
return reply
`
}
