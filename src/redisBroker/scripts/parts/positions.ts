/**
 * Positions of a stream, `milliseconds-number`, in scripts. A number beyond 2^53 is not told apart from its neighbours. A position
 * that another program wrote and that is none counts as the lowest.
 */

/**
 * `parse(position)`: its two parts; one without a dash is the first of its millisecond. `isLower(a, b)`. `positionAt(time)`: the first
 * position of a millisecond.
 */
export const positions = `
local function parse(position)
  local time, number = string.match(position, '^(%d+)%-?(%d*)$')
  return tonumber(time) or 0, tonumber(number) or 0
end
local function isLower(a, b)
  local aTime, aNumber = parse(a)
  local bTime, bNumber = parse(b)
  return aTime < bTime or (aTime == bTime and aNumber < bNumber)
end
local function positionAt(time) return string.format('%.0f-0', math.max(0, time)) end
`

/**
 * The same, with the neighbours of a position: `positionBefore(position)`, `positionAfter(position)`; and `floorOf(stream, info)`: the
 * position up to which a group has acknowledged everything, from its part of XINFO GROUPS, and the lowest pending position, if any.
 */
export const floorOf = `${positions}
local function positionBefore(position)
  local time, number = parse(position)
  if number > 0 then return string.format('%.0f-%.0f', time, number - 1) end
  return time == 0 and '0-0' or string.format('%.0f-18446744073709551615', time - 1)
end
local function positionAfter(position)
  local time, number = parse(position)
  if number < 9007199254740991 then return string.format('%.0f-%.0f', time, number + 1) end
  return string.format('%.0f-0', time + 1)
end
local function floorOf(stream, info)
  if info[6] == 0 then return info[8] end
  local lowest = redis.call('XPENDING', stream, info[2])[2]
  return positionBefore(lowest), lowest
end
`

/** `isPosition(text)`: whether Redis takes it for a position; the number may be missing. */
export const isPosition = `
local function isPosition(text) return string.find(text, '^%d+$') or string.find(text, '^%d+%-%d+$') end
`
