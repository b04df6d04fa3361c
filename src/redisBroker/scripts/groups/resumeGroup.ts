import { memberEvents } from "../../eventNames.ts"
import { idempotentScript } from "../../script.ts"
import { pausesOf } from "../parts/pauses.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Ends pauses of a group, and begins the count of its dead letters anew. Its members are told by an event.
 *
 * KEYS: paused, storm of the group.
 * ARGV: group, events channel, patterns (none: all).
 * Reply: the pauses that were in force and have ended: pattern, value and ms until it would have ended (-1: it did not) of each.
 */
export const resumeGroup = idempotentScript("resumeGroup")`
local paused, storm = KEYS[1], KEYS[2]
local group, events = ARGV[1], ARGV[2]
local total = #ARGV
${wrongType}${clock}${pausesOf}
local problem = wrongType(paused, 'hash')
if problem then return problem end
local wanted, ended = {}, {}
for i = 3, total do wanted[ARGV[i]] = true end
local found = pausesOf(paused, group)
for i = 1, #found, 3 do
  if total == 2 or wanted[found[i]] then
    redis.call('HDEL', paused, group .. '\\n' .. found[i])
    for j = i, i + 2 do ended[#ended + 1] = found[j] end
  end
end
redis.call('UNLINK', storm)
if #ended > 0 then redis.call('PUBLISH', events, '${memberEvents.paused}\\n' .. group) end
return ended
`
