import type { Script } from "../../Redis.ts"
import { checking } from "./parts/checks.ts"
import { versioning } from "./parts/versioning.ts"

/**
 * Registers a group for a selector. From then on nothing that the selector matches is trimmed before the group has
 * acknowledged it.
 *
 * KEYS: meta, groups. ARGV: fields of the group (group and pattern or name). Reply: how many are new.
 */
export const register: Script = {
  name: "register",
  lua: `
local meta, groups = KEYS[1], KEYS[2]
local total = #ARGV
${checking}
${versioning}
local problem = wrongType(meta, 'hash') or wrongType(groups, 'hash')
if problem then return problem end
local new = 0
-- What is there is not written again: a consumer can start, too, when memory is full.
for i = 1, total do
  if redis.call('HEXISTS', groups, ARGV[i]) == 0 then new = new + redis.call('HSETNX', groups, ARGV[i], '') end
end
if new > 0 then
  newVersion()
end
return new
`
}
