import { idempotentScript } from "../../script.ts"

/**
 * Reads a page of the bodies of a group and channel, for those without a due time and those that cannot be read.
 *
 * KEYS: bodies, waiting.
 * ARGV: cursor, about how many, group and channel, each with a line feed (as in `waiting`).
 * Reply: {next cursor ("0": that was all), number of bodies read, ids without a time, ids that cannot be read, bytes read}.
 */
export const scanBodies = idempotentScript("scanBodies")`
local bodies, waiting = KEYS[1], KEYS[2]
local cursor, limit, prefix = ARGV[1], ARGV[2], ARGV[3]
local isScheduled = string.byte(prefix) == 10
local page = redis.call('HSCAN', bodies, cursor, 'COUNT', limit)
local stray, unreadable, bytes = {}, {}, 0
local function isBody(body)
  local from = 1
  while true do
    local stop = string.find(body, '\\n', from, true)
    if not stop then return false end
    if not isScheduled or stop == from then return true end
    from = stop + 1
  end
end
for i = 1, #page[2], 2 do
  local id = page[2][i]
  bytes = bytes + #page[2][i + 1]
  if not redis.call('ZSCORE', waiting, prefix .. id) then stray[#stray + 1] = id end
  if not isBody(page[2][i + 1]) then unreadable[#unreadable + 1] = id end
end
return {page[1], #page[2] / 2, stray, unreadable, bytes}
`
