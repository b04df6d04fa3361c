import { idempotentScript } from "../../script.ts"
import { memberEvents } from "../../eventNames.ts"
import { wrongType } from "../parts/preconditions.ts"
import { mostGenerous } from "../parts/channelLimits.ts"
import { makeStream } from "../parts/makeStream.ts"
import { newVersion } from "../parts/registryVersion.ts"
import { clock } from "../parts/time.ts"

/**
 * Registers a channel, creates its log, tells running readers, and decides its limits: the most generous of the definitions that programs have
 * named lately. The version goes up when that changes something.
 *
 * KEYS: meta, channels, log, definitions (only with a definition).
 * ARGV: channel, definition of its limits (see `mostGenerous`; "": the caller knows none), events channel, ms for which a definition counts
 * after a program has named it.
 * Reply: the last position in the log ("0-0" when it is new), from which a lost publish is searched; the limits as JSON ("": none); the
 * number of definitions that count.
 *
 * Definitions are removed when another one is named, and not by themselves: those of a channel that no program publishes to any more stay.
 */
export const createChannel = idempotentScript("createChannel")`
local meta, channels, log, definitions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name, definition, events, lasting = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
${wrongType}${clock}${mostGenerous}${makeStream}${newVersion}
local problem = wrongType(meta, 'hash') or wrongType(channels, 'hash') or wrongType(log, 'stream')
  or definitions and wrongType(definitions, 'hash')
if problem then return problem end
if redis.call('EXISTS', log) == 0 then makeStream(log) end
local known = redis.call('HGET', channels, name)
local limits, count = known or '', 0
if definition ~= '' then
  local now = clock()
  local lines, all = {string.format('%.0f', now) .. ' ' .. definition}, {definition}
  for heard, other in string.gmatch(redis.call('HGET', definitions, name) or '', '(%d+) ([%d-]+ [%d-]+ [%d-]+)') do
    if other ~= definition and now - tonumber(heard) < lasting and #all < 100 then
      lines[#lines + 1] = heard .. ' ' .. other
      all[#all + 1] = other
    end
  end
  redis.call('HSET', definitions, name, table.concat(lines, '\\n'))
  limits, count = mostGenerous(all), #all
end
if known ~= limits then
  redis.call('HSET', channels, name, limits)
  newVersion()
  if not known then redis.call('PUBLISH', events, '${memberEvents.channel}\\n' .. name) end
end
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
return {last and last[1] or '0-0', limits, count}
`
