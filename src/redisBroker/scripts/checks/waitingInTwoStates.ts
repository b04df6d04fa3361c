import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { deliveryState } from "../parts/deliveryState.ts"

/**
 * Whether a message waits for its retry and is still to be settled in the log as well. Repair removes the waiting message: the log still has
 * it.
 *
 * KEYS: waiting, bodies, log.
 * ARGV: `check` or `repair`, group, member of waiting, position in the log (its field in the bodies).
 * Reply: 1 when it is so, else 0.
 */
export const waitingInTwoStates = idempotentScript("waitingInTwoStates")`
local waiting, bodies, log = KEYS[1], KEYS[2], KEYS[3]
local step, group, member, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
${wrongType}${deliveryState}
if not redis.call('ZSCORE', waiting, member) or not deliveryState(log, group, position) then return 0 end
if step == 'repair' then
  local problem = wrongType(bodies, 'hash')
  if problem then return problem end
  redis.call('ZREM', waiting, member)
  redis.call('HDEL', bodies, position)
end
return 1
`
