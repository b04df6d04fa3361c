import type { Script } from "../../../Redis.ts"

/**
 * Removes from the head of a log what is beyond the length and the minimal position that the registry has for its channel now.
 *
 * KEYS: channels, log. ARGV: channel, how many entries at most. Reply: how many were removed. Whole nodes of the stream go, so a few more
 * than the limit stay.
 */
export const setLimits: Script = {
  name: "setLimits",
  lua: `
local channels, log = KEYS[1], KEYS[2]
local name, most = ARGV[1], ARGV[2]
if redis.call('TYPE', log).ok ~= 'stream' then return 0 end
local text = redis.call('HGET', channels, name)
local isRead, limits = pcall(cjson.decode, text or '')
if not isRead or type(limits) ~= 'table' then return 0 end
local removed = 0
if type(limits.maxLength) == 'number' and limits.maxLength >= 0 then
  removed = redis.call('XTRIM', log, 'MAXLEN', '~', string.format('%.0f', limits.maxLength), 'LIMIT', most)
end
if type(limits.minId) == 'string' and string.find(limits.minId, '^%d+%-?%d*$') then
  removed = removed + redis.call('XTRIM', log, 'MINID', '~', limits.minId, 'LIMIT', most)
end
return removed
`
}
