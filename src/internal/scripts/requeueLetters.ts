import type { Script } from "../../Redis.ts"
import { countingOff } from "./parts/counting.ts"
import { makingStreams } from "./parts/streams.ts"
import { versioning } from "./parts/versioning.ts"

/**
 * Moves dead letters back to the groups that failed: into the retry stream of each, as a message that begins anew. Whoever comes
 * second finds a letter gone.
 *
 * KEYS: dead, counts, meta, then for each target its retry stream and the retries of its group. ARGV: events channel, number of targets, for
 * each target its group and channel, then for each letter: id, index of its target from 1, description, payload.
 * Reply: the ids of the letters moved.
 *
 * Types are checked before the first write; then the XADD comes first: it can be refused when memory is full, and then the letter stays.
 */
export const requeueLetters: Script = {
  name: "requeueLetters",
  lua: `
local dead, counts, meta = KEYS[1], KEYS[2], KEYS[3]
local events, targets = ARGV[1], tonumber(ARGV[2])
${countingOff}
${makingStreams}
${versioning}
local function check(key, expected)
  local found = redis.call('TYPE', key).ok
  if found == 'none' or found == expected then return nil end
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', expected a ' .. expected)
end
local problem = check(dead, 'stream') or check(counts, 'hash') or check(meta, 'hash')
for i = 1, targets do
  problem = problem or check(KEYS[2 + 2 * i], 'stream') or check(KEYS[3 + 2 * i], 'set')
end
if problem then return problem end
local moved, ready = {}, {}
for i = 3 + 2 * targets, #ARGV, 4 do
  local id, target, description, payload = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local entry = redis.call('XRANGE', dead, id, id)[1]
  if entry then
    local retry, retries = KEYS[2 + 2 * target], KEYS[3 + 2 * target]
    local group, channel = ARGV[1 + 2 * target], ARGV[2 + 2 * target]
    if not ready[target] then
      ready[target] = true
      if redis.call('EXISTS', retry) == 0 then
        makeStream(retry, group)
        -- Of one that was deleted.
        redis.call('HDEL', counts, 'z\\n' .. group .. '\\n' .. channel)
      end
      if redis.call('SADD', retries, channel) == 1 then
        newVersion()
        redis.call('PUBLISH', events, 'retry\\n' .. group .. '\\n' .. channel)
      end
    end
    redis.call('XADD', retry, '*', 'm', description, 'p', payload)
    redis.call('XDEL', dead, id)
    countOff(entry[2], false)
    moved[#moved + 1] = id
  end
end
return moved
`
}
