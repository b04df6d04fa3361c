import { script } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { countOff } from "../parts/counting.ts"
import { sizeOf } from "../parts/entrySize.ts"

/**
 * Deletes dead letters and counts them off.
 *
 * KEYS: dead, counts.
 * ARGV: ids.
 * Reply: {number of ids it came to, then those that were there}: after about 1 MiB a call ends.
 */
export const removeLetters = script("removeLetters")`
local dead, counts = KEYS[1], KEYS[2]
local total = #ARGV
${wrongType}${countOff}${sizeOf}
local problem = wrongType(dead, 'stream') or wrongType(counts, 'hash')
if problem then return problem end
local reply, bytes = {total}, 0
for i = 1, total do
  local entry = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if entry then
    redis.call('XDEL', dead, ARGV[i])
    countOff(entry[2])
    reply[#reply + 1] = ARGV[i]
    bytes = bytes + sizeOf(entry)
  end
  if bytes >= 1048576 then
    reply[1] = i
    break
  end
end
return reply
`
