import { idempotentScript } from "../../script.ts"
import { counters } from "../../counters.ts"
import { listOf } from "../parts/counting.ts"
import { wrongType } from "../parts/preconditions.ts"
import { floorOf } from "../parts/positions.ts"
import { newVersion } from "../parts/registryVersion.ts"

/**
 * Removes a group from a channel, with its deliveries, the messages that wait for its retries, and its totals. Its dead letters stay.
 *
 * KEYS: log, retry stream, retries and floors of the group, meta, counts, bodies and trials of the group and channel, settled, then busy,
 * lines, behind and reached of the group and channel.
 * ARGV: group, channel, 1 in the first call of a removal.
 * Reply: 1 when it is removed; 0 when leases were released and there are more.
 *
 * A call releases at most 1,000 leases: XGROUP DESTROY frees the memory of all leases at once, and the server waits. The bodies go too, of
 * which `promote` could make a retry stream; their names in `waiting` are removed when a promoter finds them. The position up to which
 * the last group of a channel had acknowledged everything is kept: the next group begins there.
 *
 * Writes: HDEL comes first. It passes when memory is full, and lets the rest pass.
 */
export const removeGroup = idempotentScript("removeGroup")`
local log, retry, retries, floors, meta, counts, bodies, trials, settled = unpack(KEYS)
local group, channel, isFirst = ARGV[1], ARGV[2], ARGV[3] == '1'
${wrongType}${floorOf}${newVersion}
local problem = wrongType(retries, 'set') or wrongType(floors, 'hash') or wrongType(meta, 'hash') or wrongType(counts, 'hash')
  or wrongType(settled, 'hash')
if problem then return problem end
local isStream = redis.call('TYPE', log).ok == 'stream'
local groups = isStream and isFirst and redis.call('XINFO', 'GROUPS', log) or {}
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
redis.call('UNLINK', retry, bodies, trials, unpack(KEYS, 10))
redis.call('SREM', retries, channel)
redis.call('HDEL', floors, channel)
for _, letter in ipairs(${listOf(Object.values(counters))}) do
  redis.call('HDEL', counts, letter .. '\\n' .. group .. '\\n' .. channel)
end
newVersion()
return 1
`
