/**
 * Lua functions for positions of a stream (`milliseconds-number`): their parts, which of two is lower, and up to where a group has
 * acknowledged everything, from what XINFO GROUPS says of it, and the lowest position that is handed out, if one is. Numbers beyond 2^53 are
 * not told apart.
 */
export const positions = `
local function parse(position)
  local dash = string.find(position, '-', 1, true)
  if not dash then return tonumber(position) or 0, 0 end
  return tonumber(string.sub(position, 1, dash - 1)) or 0, tonumber(string.sub(position, dash + 1)) or 0
end
local function lower(a, b)
  local aTime, aSequence = parse(a)
  local bTime, bSequence = parse(b)
  return aTime < bTime or (aTime == bTime and aSequence < bSequence)
end
local function text(number) return string.format('%.0f', number) end
local function floorOf(stream, info)
  if info[6] == 0 then return info[8] end
  local lowest = redis.call('XPENDING', stream, info[2])[2]
  local time, sequence = parse(lowest)
  if sequence > 0 then return text(time) .. '-' .. text(sequence - 1), lowest end
  return time == 0 and '0-0' or text(time - 1) .. '-18446744073709551615', lowest
end
`
