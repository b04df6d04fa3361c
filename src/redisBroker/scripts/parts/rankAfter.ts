/**
 * `rankAfter(set, score, member)`: the rank of the first member after a place, whether the member of that place is still there or not. With
 * it a sorted set is read in pages. Members of one score stand in the order of their bytes; `<` of Lua follows the locale of the server,
 * so they are compared byte by byte.
 */
export const rankAfter = `
local function isAfter(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local function rankAfter(set, score, member)
  local low, high = redis.call('ZCOUNT', set, '-inf', '(' .. score), redis.call('ZCOUNT', set, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if isAfter(redis.call('ZRANGE', set, middle, middle)[1], member) then high = middle else low = middle + 1 end
  end
  return low
end
`
