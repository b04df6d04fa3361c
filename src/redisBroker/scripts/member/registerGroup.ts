import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { newVersion } from "../parts/registryVersion.ts"
import { wasRemoved } from "../parts/wasRemoved.ts"

/**
 * Registers a group for a selector. From then on nothing that the selector matches is trimmed before the group has acknowledged it.
 *
 * KEYS: meta, groups, removals of the group.
 * ARGV: the removals that the caller knows, fields of the group (group and pattern or name).
 * Reply: the number of new fields; -1 when the group was removed since, and nothing was done.
 */
export const registerGroup = idempotentScript("registerGroup")`
local meta, groups, removed = KEYS[1], KEYS[2], KEYS[3]
local known, total = ARGV[1], #ARGV
${wrongType}${wasRemoved}${newVersion}
local problem = wrongType(meta, 'hash') or wrongType(groups, 'hash') or wrongType(removed, 'hash')
if problem then return problem end
if wasRemoved(removed, known) then return -1 end
local new = 0
-- Fields that are there are not written again, so that a consumer can start when memory is full.
for i = 2, total do
  if redis.call('HEXISTS', groups, ARGV[i]) == 0 then new = new + redis.call('HSETNX', groups, ARGV[i], '') end
end
if new > 0 then newVersion() end
return new
`
