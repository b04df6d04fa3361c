import { idempotentScript } from "../../script.ts"
import { deliveryState } from "../parts/deliveryState.ts"

/**
 * Whether a message is a dead letter of a group and on its way to it as well.
 *
 * KEYS: dead, waiting, log, retry stream.
 * ARGV: id of the letter, group, member of waiting, position in the log, position in the retry stream ("": not checked).
 * Reply: 1 when it is so, else 0.
 */
export const letterInTwoStates = idempotentScript("letterInTwoStates")`
local dead, waiting, log, retry = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local letter, group, member, origin, position = unpack(ARGV)
${deliveryState}
if #redis.call('XRANGE', dead, letter, letter) == 0 then return 0 end
if redis.call('ZSCORE', waiting, member) or deliveryState(log, group, origin) then return 1 end
return position ~= '' and deliveryState(retry, group, position) and 1 or 0
`
