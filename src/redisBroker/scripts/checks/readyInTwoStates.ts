import { idempotentScript } from "../../script.ts"
import { counters } from "../../counters.ts"
import { wrongType } from "../parts/preconditions.ts"
import { count } from "../parts/counting.ts"
import { deliveryState } from "../parts/deliveryState.ts"

/**
 * Whether a message that is ready again (in the retry stream) is elsewhere as well: in `waiting` or in the `log`. Repair removes the
 * waiting message; of a message that is in the log too it removes the entry of the retry stream, if no consumer has it yet.
 *
 * KEYS: retry stream, waiting, bodies, log, counts.
 * ARGV: `check` or `repair`, which of the two, group, channel, position in the retry stream, member of waiting, position in the log.
 * Reply: 1 when it is so; 2 when so and not to be repaired now; else 0.
 *
 * A removed entry counts as settled in the retry stream, so that the number of messages that are ready stays right.
 */
export const readyInTwoStates = idempotentScript("readyInTwoStates")`
local retry, waiting, bodies, log, counts = unpack(KEYS)
local step, where, group, channel, position, member, origin = unpack(ARGV)
${wrongType}${count}${deliveryState}
local problem = step == 'repair' and (wrongType(bodies, 'hash') or wrongType(counts, 'hash'))
if problem then return problem end
local state = deliveryState(retry, group, position)
if not state then return 0 end
if where == 'waiting' then
  if not redis.call('ZSCORE', waiting, member) then return 0 end
  if step == 'repair' then
    redis.call('ZREM', waiting, member)
    redis.call('HDEL', bodies, origin)
  end
  return 1
end
if not deliveryState(log, group, origin) then return 0 end
if state == 'pending' then return 2 end
if step == 'repair' then count('${counters.settledRetries}', group .. '\\n' .. channel, redis.call('XDEL', retry, position)) end
return 1
`
