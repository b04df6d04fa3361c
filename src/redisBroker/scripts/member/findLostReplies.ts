import { idempotentScript } from "../../script.ts"

/**
 * Hands a consumer once more the deliveries of a reply that never arrived. Their leases start anew, and the delivery counts stay, because
 * nobody has seen these deliveries; one that another consumer holds by now stays there.
 *
 * KEYS: the stream, trials of the group and channel.
 * ARGV: group, consumer, kind (`l` for a log, `r` for a retry stream), positions.
 * Reply: {position, fields, delivery count, its trials or ""} for each delivery that was its own and still has its message.
 */
export const findLostReplies = idempotentScript("findLostReplies")`
local stream, trials = KEYS[1], KEYS[2]
local group, consumer, kind = ARGV[1], ARGV[2], ARGV[3]
local isTried = redis.call('TYPE', trials).ok == 'hash'
local found = {}
for i = 4, #ARGV do
  local lease = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if lease and lease[2] == consumer then
    local count = math.max(1, lease[4])
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'RETRYCOUNT', count)[1]
    if entry then
      local tried = isTried and redis.call('HGET', trials, kind .. ARGV[i]) or ''
      found[#found + 1] = {entry[1], entry[2], count, tried}
    end
  end
end
return found
`
