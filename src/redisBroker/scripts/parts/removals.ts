/**
 * A Lua function: whether a group was removed since its caller noted its removals. `known` is JSON: pairs of a pattern of the group and the
 * removal that is known for it ("": none). What is not there proves nothing: a flush takes it along, and time.
 */
export const removals = `
local function wasRemoved(removed, known)
  for _, one in ipairs(cjson.decode(known)) do
    local removal = redis.call('HGET', removed, one[1])
    if removal and removal ~= one[2] then return true end
  end
  return false
end
`
