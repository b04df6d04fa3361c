import type { Script } from "../../Redis.ts"

/**
 * Creates a group on streams where it is missing: at its stored floor if it has one there, else at the given position.
 *
 * KEYS: floors of the group, streams. ARGV: group, position, then the channel of each stream ("": a retry stream, which is
 * always read from its beginning). Reply: how many were created.
 */
export const attach: Script = {
  name: "attach",
  lua: `
local floors = KEYS[1]
local group, start = ARGV[1], ARGV[2]
local created = 0
for i = 2, #KEYS do
  local exists = false
  if redis.call('EXISTS', KEYS[i]) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
      if info[2] == group then exists = true end
    end
  end
  if not exists then
    local channel = ARGV[i + 1]
    local position = '0'
    if channel ~= '' then position = redis.call('HGET', floors, channel) or start end
    redis.call('XGROUP', 'CREATE', KEYS[i], group, position, 'MKSTREAM')
    created = created + 1
  end
end
return created
`
}
