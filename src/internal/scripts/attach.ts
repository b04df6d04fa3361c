import type { Script } from "../../Redis.ts"

/**
 * Creates a group on streams where it is missing: at its stored floor if it has one there, else at the given position, which
 * becomes its floor, so that a group that is lost before the janitor has seen it does not go back to the beginning.
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
  local exists, last = false, '0'
  if redis.call('EXISTS', KEYS[i]) == 1 then
    last = redis.call('XINFO', 'STREAM', KEYS[i])[8]
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
      if info[2] == group then exists = true end
    end
  end
  if not exists then
    local channel = ARGV[i + 1]
    local position = '0'
    if channel ~= '' then
      local floor = redis.call('HGET', floors, channel)
      position = floor or start
      if position == '$' then position = last end
      if not floor and position ~= '0' then redis.call('HSET', floors, channel, position) end
    end
    redis.call('XGROUP', 'CREATE', KEYS[i], group, position, 'MKSTREAM')
    created = created + 1
  end
end
return created
`
}
