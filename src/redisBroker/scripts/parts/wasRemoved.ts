/**
 * `wasRemoved(removed, known)`: whether a group was removed since its caller read its removals. `known` is JSON: pairs of a pattern of the
 * group and the removal that the caller knows ("": none). A removal that is missing proves nothing: a flush takes it along, and time.
 */
export const wasRemoved = `
local function wasRemoved(removed, known)
  for _, one in ipairs(cjson.decode(known)) do
    local removal = redis.call('HGET', removed, one[1])
    if removal and removal ~= one[2] then return true end
  end
  return false
end
`
