/**
 * Lua functions for the scripts that decide what the limits of a channel are. A definition is its maximal length, minimal position and
 * maximal age in ms, with spaces between and `-` for what it has not.
 */
export const limiting = `
local function isLower(a, b)
  local aTime, aSequence = string.match(a, '^(%d+)%-?(%d*)$')
  local bTime, bSequence = string.match(b, '^(%d+)%-?(%d*)$')
  aTime, bTime = tonumber(aTime), tonumber(bTime)
  return aTime < bTime or aTime == bTime and (tonumber(aSequence) or 0) < (tonumber(bSequence) or 0)
end
-- Nothing is removed that one of the definitions would keep: a limit counts where all have it, at its most generous.
local function generous(definitions)
  local length, least, age = string.match(definitions[1], '^(%S+) (%S+) (%S+)$')
  for i = 2, #definitions do
    local otherLength, otherLeast, otherAge = string.match(definitions[i], '^(%S+) (%S+) (%S+)$')
    if length == '-' or otherLength == '-' then length = '-'
    elseif tonumber(otherLength) > tonumber(length) then length = otherLength end
    if least == '-' or otherLeast == '-' then least = '-'
    elseif isLower(otherLeast, least) then least = otherLeast end
    if age == '-' or otherAge == '-' then age = '-'
    elseif tonumber(otherAge) > tonumber(age) then age = otherAge end
  end
  local parts = {}
  if length ~= '-' then parts[#parts + 1] = '"maxLength":' .. length end
  if least ~= '-' then parts[#parts + 1] = '"minId":"' .. least .. '"' end
  if age ~= '-' then parts[#parts + 1] = '"maxAgeMillis":' .. age end
  return #parts == 0 and '' or '{' .. table.concat(parts, ',') .. '}'
end
`
