import type { Script } from "../../Redis.ts"
import { versioning } from "./parts/versioning.ts"

/**
 * Removes a group from a channel, with its deliveries and its totals. Its dead letters stay.
 *
 * KEYS: log, retry stream, retries and floors of the group, meta, counts. ARGV: group, channel. Reply: 1.
 */
export const drop: Script = {
  name: "drop",
  lua: `
local log, retry, retries, floors, meta, counts = unpack(KEYS)
local group, channel = ARGV[1], ARGV[2]
${versioning}
if redis.call('EXISTS', log) == 1 then redis.call('XGROUP', 'DESTROY', log, group) end
redis.call('DEL', retry)
redis.call('SREM', retries, channel)
redis.call('HDEL', floors, channel)
for _, kind in ipairs({'a', 'u', 'f', 'r', 'b', 'c', 'x', 's', 'z'}) do
  redis.call('HDEL', counts, kind .. '\\n' .. group .. '\\n' .. channel)
end
newVersion()
return 1
`
}
