import { idempotentScript } from "../../script.ts"
import { isPosition } from "../parts/positions.ts"

/**
 * Removes from the head of a log the entries beyond the length and the minimal position that the registry has for its channel now.
 *
 * KEYS: channels, log.
 * ARGV: channel, at most how many entries.
 * Reply: the number of removed entries. Whole nodes of the stream are removed, so slightly more entries than the limit stay.
 */
export const trimToLimits = idempotentScript("trimToLimits")`
local channels, log = KEYS[1], KEYS[2]
local name, most = ARGV[1], ARGV[2]
${isPosition}
if redis.call('TYPE', log).ok ~= 'stream' then return 0 end
local text = redis.call('HGET', channels, name)
local isRead, limits = pcall(cjson.decode, text or '')
if not isRead or type(limits) ~= 'table' then return 0 end
local removed = 0
if type(limits.maxLength) == 'number' and limits.maxLength >= 0 then
  removed = redis.call('XTRIM', log, 'MAXLEN', '~', string.format('%.0f', limits.maxLength), 'LIMIT', most)
end
if type(limits.minId) == 'string' and isPosition(limits.minId) then
  removed = removed + redis.call('XTRIM', log, 'MINID', '~', limits.minId, 'LIMIT', most)
end
return removed
`
