import { positions } from "./positions.ts"

/**
 * `mostGenerous(definitions)`: the limits of a channel as JSON, from all definitions of them. A definition is its maximal length, minimal
 * position and maximal age in ms, with spaces between and `-` for each it has not. A limit counts only where all definitions have it, at
 * its most generous: nothing is removed that one of them would keep.
 */
export const mostGenerous = `${positions}
local function mostGenerous(definitions)
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
