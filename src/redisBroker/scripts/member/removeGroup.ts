import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { positions } from "../parts/positions.ts"
import { versioning } from "../parts/registryVersion.ts"

/**
 * Removes a group from a channel, with its deliveries, what waits for a retry, and its totals. Its dead letters stay.
 *
 * KEYS: log, retry stream, retries and floors of the group, meta, counts, bodies and trials of the group and channel, settled. ARGV: group, channel, 1
 * in the first call of a removal. Reply: 1 when it is removed, 0 when some of what it holds was let go, and there is more.
 *
 * A call lets go of 1,000 leases at most: to destroy a group frees what all of its leases take, while everybody waits. With the bodies goes what
 * `promote` could make a retry stream of; their names in `waiting` are removed by whoever finds them. How far the last group of a channel has come is
 * remembered: the next group gets nothing of what is left of that.
 */
export const removeGroup: Script = {
  name: "removeGroup",
  lua: `
local log, retry, retries, floors, meta, counts, bodies, trials, settled = unpack(KEYS)
local group, channel, isFirst = ARGV[1], ARGV[2], ARGV[3] == '1'
${checking}
${positions}
${versioning}
local problem = wrongType(retries, 'set') or wrongType(floors, 'hash') or wrongType(meta, 'hash') or wrongType(counts, 'hash')
  or wrongType(settled, 'hash')
if problem then return problem end
local isStream = redis.call('TYPE', log).ok == 'stream'
local groups = isStream and isFirst and redis.call('XINFO', 'GROUPS', log) or {}
-- One that passes when memory is full, and lets the rest pass.
redis.call('HDEL', settled, '')
if #groups == 1 and groups[1][2] == group then redis.call('HSET', settled, channel, (floorOf(log, groups[1]))) end
local found = isStream and redis.pcall('XPENDING', log, group, '-', '+', 1000) or {}
if #found == 1000 then
  local command = {'XACK', log, group}
  for i, lease in ipairs(found) do command[i + 3] = lease[1] end
  redis.call(unpack(command))
  return 0
end
if isStream then redis.call('XGROUP', 'DESTROY', log, group) end
redis.call('UNLINK', retry, bodies, trials)
redis.call('SREM', retries, channel)
redis.call('HDEL', floors, channel)
for _, kind in ipairs({'a', 'u', 'f', 'r', 'b', 'c', 'x', 's', 'z'}) do
  redis.call('HDEL', counts, kind .. '\\n' .. group .. '\\n' .. channel)
end
newVersion()
return 1
`
}
