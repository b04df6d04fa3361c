/**
 * Pauses of groups, in the hash `paused`: group and pattern → since when, a space, until when (`-`: until it is resumed), a space, and JSON of the
 * rest. `pauseOf` in `redisBroker/pauses.ts` reads them in TypeScript.
 */

/** `endOf(value)`: when a pause ends; nothing when the value is none of a pause. */
const endOf = `
local function endOf(value)
  local at = string.match(value, '^%d+ ([%d-]+) {')
  return at == '-' and math.huge or tonumber(at)
end
`

/** `pausesOf(paused, group)`: the pauses of the group that are in force, as pattern, value, and ms until it ends (-1: it does not). */
export const pausesOf = `${endOf}
local function pausesOf(paused, group)
  local found, all, now = {}, redis.call('HGETALL', paused)
  if #all > 0 then now = clock() end
  for i = 1, #all, 2 do
    local ends = string.sub(all[i], 1, #group + 1) == group .. '\\n' and endOf(all[i + 1])
    if ends and ends > now then
      found[#found + 1] = string.sub(all[i], #group + 2)
      found[#found + 1] = all[i + 1]
      found[#found + 1] = ends == math.huge and -1 or ends - now
    end
  end
  return found
end
`

/** `dropEnded(paused, now)`: removes the pauses that have ended by themselves. It passes when memory is full, and lets the rest pass. */
export const dropEnded = `${endOf}
local function dropEnded(paused, now)
  redis.call('HDEL', paused, '')
  local all = redis.call('HGETALL', paused)
  for i = 1, #all, 2 do
    local ends = endOf(all[i + 1])
    if ends and ends <= now then redis.call('HDEL', paused, all[i]) end
  end
end
`
