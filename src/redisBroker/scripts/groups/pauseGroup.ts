import { memberEvents } from "../../eventNames.ts"
import { idempotentScript } from "../../script.ts"
import { dropEnded } from "../parts/pauses.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock } from "../parts/time.ts"

/**
 * Pauses a group, on each of the given patterns. Its members are told by an event. Pauses that have ended by themselves are removed.
 *
 * KEYS: paused.
 * ARGV: group, until when in ms ("-": until it is resumed), JSON with id, reason and who asked for it, 1 to leave a pause that is there, the most
 * pauses of a shard, events channel, patterns.
 * Reply: 1; 0 when its time is over already; -1 when there are too many pauses. Nothing was done then.
 */
export const pauseGroup = idempotentScript("pauseGroup")`
local paused = KEYS[1]
local group, ends, text, isIfNone, most, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', tonumber(ARGV[5]), ARGV[6]
local total = #ARGV
${wrongType}${clock}${dropEnded}
local problem = wrongType(paused, 'hash')
if problem then return problem end
local now = clock()
if ends ~= '-' and tonumber(ends) <= now then return 0 end
dropEnded(paused, now)
local value, fields, new = string.format('%.0f', now) .. ' ' .. ends .. ' ' .. text, {}, 0
for i = 7, total do
  local field = group .. '\\n' .. ARGV[i]
  local found = redis.call('HGET', paused, field)
  if not found then new = new + 1 end
  -- The same call again, after its reply was lost.
  local isSame = found and string.match(found, '^%d+ (.*)$') == ends .. ' ' .. text
  if not isSame and not (found and isIfNone) then fields[#fields + 1] = field end
end
if new > 0 and redis.call('HLEN', paused) + new > most then return -1 end
for _, field in ipairs(fields) do redis.call('HSET', paused, field, value) end
if #fields > 0 then redis.call('PUBLISH', events, '${memberEvents.paused}\\n' .. group) end
return 1
`
