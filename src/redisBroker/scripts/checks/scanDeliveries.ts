import { idempotentScript } from "../../script.ts"

/**
 * Reads a page of the pending deliveries of a group, for those whose message is gone.
 *
 * KEYS: the stream.
 * ARGV: group, position to begin at, at most how many, ms for which a delivery must be idle.
 * Reply: {number of deliveries read, position to go on at ("": that was all), positions without a message}.
 */
export const scanDeliveries = idempotentScript("scanDeliveries")`
local stream = KEYS[1]
local group, from, limit, idle = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local page = redis.call('XPENDING', stream, group, from, '+', limit)
local stray = {}
for _, lease in ipairs(page) do
  if lease[3] >= idle and #redis.call('XRANGE', stream, lease[1], lease[1]) == 0 then stray[#stray + 1] = lease[1] end
end
return {#page, #page == limit and '(' .. page[limit][1] or '', stray}
`
