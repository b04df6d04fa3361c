import { idempotentScript } from "../../script.ts"
import { memberEvents } from "../../eventNames.ts"
import { isRegistered } from "../parts/isRegistered.ts"
import { wrongType } from "../parts/preconditions.ts"
import { newVersion } from "../parts/registryVersion.ts"

/**
 * Ends the registration of a group, and records its removal, so that its consumers that still run do not take it for lost and make it again.
 * They are told by an event. With the last registration of the group ends what it has decided about ordering keys.
 *
 * KEYS: meta, groups, removals of the group, orderings.
 * ARGV: group, ms for which the removal is recorded, events channel, patterns.
 * Reply: the number of patterns that were registered.
 */
export const unregisterGroup = idempotentScript("unregisterGroup")`
local meta, groups, removed, orderings = unpack(KEYS)
local group, ms, events = ARGV[1], ARGV[2], ARGV[3]
local total = #ARGV
${wrongType}${isRegistered}${newVersion}
local problem = wrongType(meta, 'hash') or wrongType(groups, 'hash') or wrongType(removed, 'hash')
  or wrongType(orderings, 'hash')
if problem then return problem end
local gone = {}
for i = 4, total do
  -- It passes when memory is full, and lets the rest pass.
  if redis.call('HDEL', groups, group .. '\\n' .. ARGV[i]) == 1 then gone[#gone + 1] = ARGV[i] end
end
if not isRegistered(groups, group) then redis.call('HDEL', orderings, group) end
if #gone == 0 then return 0 end
newVersion()
local removal = redis.call('HGET', meta, 'v')
for _, pattern in ipairs(gone) do redis.call('HSET', removed, pattern, removal) end
redis.call('PEXPIRE', removed, ms)
redis.call('PUBLISH', events, '${memberEvents.removed}\\n' .. group)
return #gone
`
