import type { Script } from "../../Redis.ts"
import { countingOff } from "./parts/counting.ts"

/**
 * Ends or prolongs offers of dead letters, each only while its token is that of the last offer.
 *
 * KEYS: dead, counts, offers, offered. ARGV: events channel, then for each letter: id, token, outcome (`remove`, `keep`, `again`, `release`,
 * `renew`), ms until it may be offered again.
 * Reply: the ids of those that were refused.
 */
export const concludeLetters: Script = {
  name: "concludeLetters",
  lua: `
local dead, counts, offers, offered = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, total = ARGV[1], #ARGV
${countingOff}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local refused, back = {}, false
for i = 2, total, 4 do
  local id, token, outcome, millis = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local count, current = string.match(redis.call('HGET', offered, id) or '', '^(%d+)\\n(.*)$')
  if current ~= token then
    refused[#refused + 1] = id
  elseif outcome == 'again' or outcome == 'release' or outcome == 'renew' then
    redis.call('ZADD', offers, now + millis, id)
    if outcome ~= 'renew' then
      -- An offer that ended has no token; the count goes on.
      back = true
      redis.call('HSET', offered, id, (outcome == 'release' and count - 1 or count) .. '\\n')
    end
  else
    redis.call('ZREM', offers, id)
    redis.call('HDEL', offered, id)
    local entry = outcome == 'remove' and redis.call('XRANGE', dead, id, id)[1]
    if entry then
      redis.call('XDEL', dead, id)
      countOff(entry[2], true)
    end
  end
end
if back then redis.call('PUBLISH', events, 'letter') end
return refused
`
}
