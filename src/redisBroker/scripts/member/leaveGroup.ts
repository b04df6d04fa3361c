import { idempotentScript } from "../../script.ts"

/**
 * Removes a consumer from the streams on which it has nothing pending. (XGROUP DELCONSUMER destroys pending entries.)
 *
 * KEYS: streams.
 * ARGV: group, consumer.
 * Reply: the number of streams from which it was removed.
 */
export const leaveGroup = idempotentScript("leaveGroup")`
local total = #KEYS
local group, consumer = ARGV[1], ARGV[2]
local removed = 0
for i = 1, total do
  local pending = redis.pcall('XPENDING', KEYS[i], group, '-', '+', 1, consumer)
  if not pending.err and #pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[i], group, consumer)
    removed = removed + 1
  end
end
return removed
`
