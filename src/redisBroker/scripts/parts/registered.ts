/**
 * A Lua function: whether a group is registered, by any of the fields of `groups` (group and pattern or name, with a line feed
 * between them). `registration` in `redisBroker/keys.ts` reads them in TypeScript.
 */
export const registering = `
local function isRegistered(groups, group)
  for _, field in ipairs(redis.call('HKEYS', groups)) do
    if string.sub(field, 1, #group + 1) == group .. '\\n' and string.find(field, '^[^\\n]+$', #group + 2) then return true end
  end
  return false
end
`
