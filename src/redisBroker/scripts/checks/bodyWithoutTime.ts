import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { makingStreams } from "../parts/makeStream.ts"
import { registering } from "../parts/registered.ts"
import { versioning } from "../parts/registryVersion.ts"

/**
 * Whether a body waits for no time. Mending makes it due at once; where it waits for a group, it makes sure that the group will read it.
 *
 * KEYS: waiting, bodies, retry stream, retries of the group, meta, groups. ARGV: `look` or `mend`, group ("": it is scheduled), channel, id,
 * events channel. Reply: 1 when it is so, 2 when so of a group that is not registered (it may be being removed: that is not mended), else 0.
 */
export const bodyWithoutTime: Script = {
  name: "bodyWithoutTime",
  lua: `
local waiting, bodies, retry, retries, meta, groups = unpack(KEYS)
local step, group, channel, id, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
${checking}
${makingStreams}
${registering}
${versioning}
local member = group .. '\\n' .. channel .. '\\n' .. id
if redis.call('HEXISTS', bodies, id) == 0 or redis.call('ZSCORE', waiting, member) then return 0 end
if group ~= '' then
  if not isRegistered(groups, group) then return 2 end
end
if step == 'mend' then
  local problem = wrongType(retry, 'stream') or wrongType(retries, 'set') or wrongType(meta, 'hash')
  if problem then return problem end
  local time = redis.call('TIME')
  redis.call('ZADD', waiting, time[1] * 1000 + math.floor(time[2] / 1000), member)
  if group ~= '' then
    if redis.call('EXISTS', retry) == 0 then makeStream(retry, group) end
    if redis.call('SADD', retries, channel) == 1 then
      newVersion()
      redis.call('PUBLISH', events, 'retry\\n' .. group .. '\\n' .. channel)
    end
  end
  redis.call('PUBLISH', events, 'due')
end
return 1
`
}
