import { script } from "../../script.ts"
import { gateConsumer, lost } from "../parts/gate.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Takes over deliveries whose lease has expired. The stamp of each consumer that loses one changes, so that its settlements and entries look at
 * each delivery from then on. A consumer without a stamp has entered nothing yet.
 *
 * KEYS: the stream, taken of the group.
 * ARGV: group, consumer, ms after which a lease has expired, positions.
 * Reply: that of XCLAIM. The server compares the idle time: a lease that its owner renewed meanwhile is not taken.
 *
 * Writes: the type is checked first. XCLAIM passes when memory is full, and lets the rest pass.
 */
export const takeOver = script("takeOver")`
local stream, taken = KEYS[1], KEYS[2]
local group, consumer, idle = ARGV[1], ARGV[2], tonumber(ARGV[3])
${wrongType}${lost}
local problem = wrongType(taken, 'hash')
if problem then return problem end
local claim, owners = {'XCLAIM', stream, group, consumer, idle}, {}
for i = 4, #ARGV do
  local lease = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if lease and lease[2] ~= '${gateConsumer}' and lease[3] >= idle then
    claim[#claim + 1] = ARGV[i]
    owners[lease[2]] = true
  end
end
if #claim == 5 then return {} end
local entries = redis.call(unpack(claim))
for owner in pairs(owners) do
  if owner ~= consumer then lost(owner) end
end
return entries
`
