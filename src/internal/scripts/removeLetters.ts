import type { Script } from "../../Redis.ts"
import { countingOff } from "./parts/counting.ts"

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
${countingOff}
local removed = {}
for i = 1, total do
  local entry = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if entry then
    redis.call('XDEL', dead, ARGV[i])
    countOff(entry[2], true)
    removed[#removed + 1] = ARGV[i]
  end
end
return removed
`
}
