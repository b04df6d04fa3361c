import type { Script } from "../../Redis.ts"

/**
 * Deletes dead letters and counts them off.
 *
 * KEYS: dead, counts. ARGV: ids. Reply: the ids of those that were there.
 */
export const removeLetters: Script = {
  name: "removeLetters",
  lua: `
local dead, counts = KEYS[1], KEYS[2]
local total = #ARGV
local removed = {}
for i = 1, total do
  local entry = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if entry then
    redis.call('XDEL', dead, ARGV[i])
    for j = 1, #entry[2], 2 do
      if entry[2][j] == 'k' then
        local field = 'd\\n' .. entry[2][j + 1]
        if redis.call('HINCRBY', counts, field, -1) <= 0 then redis.call('HDEL', counts, field) end
      end
    end
    removed[#removed + 1] = ARGV[i]
  end
end
return removed
`
}
