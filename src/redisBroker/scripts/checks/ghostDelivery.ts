import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"

/**
 * Whether a delivery is handed out, nobody has touched it for long, and its message is gone. Mending ends it: there is nothing to be handled.
 *
 * KEYS: the stream, counts. ARGV: `look` or `mend`, group, channel, position, ms, 1 when it is a retry stream (else 0).
 * Reply: 1 when it is so, else 0.
 */
export const ghostDelivery: Script = {
  name: "ghostDelivery",
  lua: `
local stream, counts = KEYS[1], KEYS[2]
local step, group, channel, position, idle, again = unpack(ARGV)
${checking}
${counting}
if redis.call('TYPE', stream).ok ~= 'stream' or #redis.call('XRANGE', stream, position, position) > 0 then return 0 end
local lease = redis.call('XPENDING', stream, group, position, position, 1)[1]
if not lease or lease[3] < tonumber(idle) then return 0 end
if step == 'mend' then
  local problem = wrongType(counts, 'hash')
  if problem then return problem end
  local ended = redis.call('XACK', stream, group, position)
  count('z', group .. '\\n' .. channel, ended * tonumber(again))
end
return 1
`
}
