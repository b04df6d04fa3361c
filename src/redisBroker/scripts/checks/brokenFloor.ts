import { idempotentScript } from "../../script.ts"
import { groupOf } from "../parts/groupOf.ts"
import { floorOf } from "../parts/positions.ts"

/**
 * How the floor of a group is broken: `beyond` when it is above the position up to which the group has acknowledged everything; `lost` when
 * the log has no such group.
 *
 * KEYS: log, floors of the group.
 * ARGV: `check` or `repair`, which of the two, group, channel.
 * Reply: 1 when it is so, else 0.
 *
 * Repair sets the floor to that position. The script `attachGroup` creates a lost group anew, at its floor.
 */
export const brokenFloor = idempotentScript("brokenFloor")`
local log, floors = KEYS[1], KEYS[2]
local step, kind, group, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local floor = redis.call('HGET', floors, channel)
if not floor or redis.call('TYPE', log).ok ~= 'stream' then return 0 end
${floorOf}${groupOf}
local info = groupOf(log, group)
if kind == 'lost' then return info and 0 or 1 end
if not info then return 0 end
local right = floorOf(log, info)
if not isLower(right, floor) then return 0 end
if step == 'repair' then redis.call('HSET', floors, channel, right) end
return 1
`
