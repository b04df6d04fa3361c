import { script } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"
import { wrongType } from "../parts/preconditions.ts"
import { countOff } from "../parts/counting.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { clock } from "../parts/time.ts"

/**
 * Ends or prolongs offers of dead letters, each only while its token is that of the last offer.
 *
 * KEYS: dead, counts, offers, offered.
 * ARGV: events channel, then for each letter: id, token, outcome (`remove`, `keep`, `again`, `release`, `renew`), ms until it may be offered again.
 * Reply: {number of letters it came to, then the refused ids}: after about 1 MiB of removed letters a call ends.
 *
 * Writes: the first one passes when memory is full, and lets the rest pass: handling dead letters frees memory.
 */
export const concludeLetters = script("concludeLetters")`
local dead, counts, offers, offered = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events, total = ARGV[1], #ARGV
${wrongType}${clock}${countOff}${sizeOf}
local problem = wrongType(dead, 'stream') or wrongType(counts, 'hash') or wrongType(offers, 'zset') or wrongType(offered, 'hash')
if problem then return problem end
redis.call('ZREM', offers, '')
local now = clock()
local reply, back, bytes = {(total - 1) / 4}, false, 0
for i = 2, total, 4 do
  local id, token, outcome, millis = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local count, current = string.match(redis.call('HGET', offered, id) or '', '^(%d+)\\n(.*)$')
  if current ~= token then
    reply[#reply + 1] = id
  elseif outcome == 'again' or outcome == 'release' or outcome == 'renew' then
    redis.call('ZADD', offers, now + millis, id)
    if outcome ~= 'renew' then
      -- An offer that has ended has no token; the count goes on.
      back = true
      redis.call('HSET', offered, id, (outcome == 'release' and count - 1 or count) .. '\\n')
    end
  else
    redis.call('ZREM', offers, id)
    redis.call('HDEL', offered, id)
    local entry = outcome == 'remove' and redis.call('XRANGE', dead, id, id)[1]
    if entry then
      redis.call('XDEL', dead, id)
      countOff(entry[2])
      bytes = bytes + sizeOf(entry)
    end
  end
  if bytes >= 1048576 then
    reply[1] = (i + 2) / 4
    break
  end
end
if back then redis.call('PUBLISH', events, '${signalEvents.letter}') end
return reply
`
