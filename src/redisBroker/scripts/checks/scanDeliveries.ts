import type { Script } from "../../../Redis.ts"

/**
 * Looks through a page of what is handed out to a group for what has no message any more.
 *
 * KEYS: the stream. ARGV: group, where to go on, how many at most, ms for which nobody has touched it at least.
 * Reply: {positions of the page, where to go on ("": that was all), positions without a message}.
 */
export const scanDeliveries: Script = {
  name: "scanDeliveries",
  lua: `
local stream = KEYS[1]
local group, from, limit, idle = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local page = redis.call('XPENDING', stream, group, from, '+', limit)
local stray = {}
for _, lease in ipairs(page) do
  if lease[3] >= idle and #redis.call('XRANGE', stream, lease[1], lease[1]) == 0 then stray[#stray + 1] = lease[1] end
end
return {#page, #page == limit and '(' .. page[limit][1] or '', stray}
`
}
