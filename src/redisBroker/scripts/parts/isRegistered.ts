/**
 * `isRegistered(groups, group)`: whether a field of `groups` (group and pattern or name, with a line feed between them) registers the group.
 * `registrationOf` in `redisBroker/keys.ts` reads them in TypeScript.
 */
export const isRegistered = `
local function isRegistered(groups, group)
  for _, field in ipairs(redis.call('HKEYS', groups)) do
    if string.sub(field, 1, #group + 1) == group .. '\\n' and string.find(field, '^[^\\n]+$', #group + 2) then return true end
  end
  return false
end
`
