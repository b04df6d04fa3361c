import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { counting } from "../parts/counting.ts"
import { openIn } from "../parts/isOpen.ts"

/**
 * Whether a message that is ready again (in the retry stream) is somewhere else as well: `waiting` or `log`. Mending removes what waits; of
 * a message that is in the log too it removes the entry of the retry stream, if nobody has it yet.
 *
 * KEYS: retry stream, waiting, bodies, log, counts. ARGV: `look` or `mend`, where, group, channel, position in the retry stream, member of
 * waiting, position in the log. Reply: 1 when it is so, 2 when so and cannot be mended now, else 0.
 *
 * An entry that is removed counts as settled in the retry stream, so that what is ready is counted right.
 */
export const readyInTwoStates: Script = {
  name: "readyInTwoStates",
  lua: `
local retry, waiting, bodies, log, counts = unpack(KEYS)
local step, where, group, channel, position, member, origin = unpack(ARGV)
${checking}
${counting}
${openIn}
local problem = step == 'mend' and (wrongType(bodies, 'hash') or wrongType(counts, 'hash'))
if problem then return problem end
local state = openIn(retry, group, position)
if not state then return 0 end
if where == 'waiting' then
  if not redis.call('ZSCORE', waiting, member) then return 0 end
  if step == 'mend' then
    redis.call('ZREM', waiting, member)
    redis.call('HDEL', bodies, origin)
  end
  return 1
end
if not openIn(log, group, origin) then return 0 end
if state == 'pending' then return 2 end
if step == 'mend' then count('z', group .. '\\n' .. channel, redis.call('XDEL', retry, position)) end
return 1
`
}
