import { idempotentScript } from "../../script.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { gateConsumer } from "../parts/gate.ts"

/**
 * Reads a page of the pending deliveries of a group, for those whose message is gone. One that waits for its ordering key is passed over when
 * it is its turn.
 *
 * KEYS: the stream.
 * ARGV: group, position to begin at, at most how many, ms for which a delivery must be idle.
 * Reply: {number of deliveries read, position to go on at ("": that was all), positions without a message}. After about 1 MiB of messages a
 * call ends: Redis tells only with its contents that an entry is there.
 */
export const scanDeliveries = idempotentScript("scanDeliveries")`
local stream = KEYS[1]
local group, from, limit, idle = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local page = redis.call('XPENDING', stream, group, from, '+', limit)
${sizeOf}
local stray, bytes = {}, 0
for i, lease in ipairs(page) do
  if lease[3] >= idle and lease[2] ~= '${gateConsumer}' then
    local entry = redis.call('XRANGE', stream, lease[1], lease[1])[1]
    if entry then bytes = bytes + sizeOf(entry) else stray[#stray + 1] = lease[1] end
  end
  if i == limit or bytes >= 1048576 then return {i, '(' .. lease[1], stray} end
end
return {#page, '', stray}
`
