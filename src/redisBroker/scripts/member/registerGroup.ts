import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { newVersion } from "../parts/registryVersion.ts"
import { wasRemoved } from "../parts/wasRemoved.ts"

/**
 * Registers a group for a selector, and records how it treats ordering keys unless that is decided. From then on nothing that the selector matches is trimmed before the group has acknowledged it.
 *
 * KEYS: meta, groups, removals of the group, orderings.
 * ARGV: the removals that the caller knows, group, how it is to treat ordering keys ("": as decided), fields of the group (group and pattern or
 * name).
 * Reply: {the number of new fields, how the group treats ordering keys ("": that is not decided)}. The number is -1 when the group was removed
 * since, -2 when it treats ordering keys in another way; then nothing was done.
 */
export const registerGroup = idempotentScript("registerGroup")`
local meta, groups, removed, orderings = unpack(KEYS)
local known, group, asked, total = ARGV[1], ARGV[2], ARGV[3], #ARGV
${wrongType}${wasRemoved}${newVersion}
local problem = wrongType(meta, 'hash') or wrongType(groups, 'hash') or wrongType(removed, 'hash')
  or wrongType(orderings, 'hash')
if problem then return problem end
if wasRemoved(removed, known) then return {-1, ''} end
local ordering, new = redis.call('HGET', orderings, group) or '', 0
if asked ~= '' and ordering ~= '' and asked ~= ordering then return {-2, ordering} end
if asked ~= '' and ordering == '' then
  redis.call('HSET', orderings, group, asked)
  ordering = asked
end
-- Fields that are there are not written again, so that a consumer can start when memory is full.
for i = 4, total do
  if redis.call('HEXISTS', groups, ARGV[i]) == 0 then new = new + redis.call('HSETNX', groups, ARGV[i], '') end
end
if new > 0 then newVersion() end
return {new, ordering}
`
