import { idempotentScript } from "../../script.ts"
import { pausesOf } from "../parts/pauses.ts"
import { clock } from "../parts/time.ts"

/**
 * Lists the streams that a group may have to read, if anything has changed since the caller listed them: an addition, or a removal by another
 * program.
 *
 * KEYS: meta, channels, groups, retries and removals of the group, paused.
 * ARGV: version the caller knows ("": none), numbers of channels and of retry streams it knows, fields of the group.
 * Reply: {version, pauses} when nothing else has changed, else {version, pauses, channels, channels with a retry stream, 1 for each registered field and 0 for each
 * other, the last removal of each field ("": none)}. Of each pause of the group that is in force: pattern, value, ms until it ends (-1: it does not).
 */
export const listSources = idempotentScript("listSources")`
local meta, channels, groups, retries, removed, paused = unpack(KEYS)
local known, channelCount, retryCount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
${clock}${pausesOf}
local version = redis.call('HGET', meta, 'v') or '0'
local pauses = pausesOf(paused, string.match(ARGV[4], '^[^\\n]*'))
local registered, removals, isWhole = {}, {}, true
for i = 4, #ARGV do
  registered[i - 3] = redis.call('HEXISTS', groups, ARGV[i])
  isWhole = isWhole and registered[i - 3] == 1
end
isWhole = isWhole and redis.call('HLEN', channels) == channelCount and #redis.call('SMEMBERS', retries) == retryCount
if isWhole and version == known then return {version, pauses} end
for i = 4, #ARGV do
  removals[i - 3] = redis.call('HGET', removed, string.match(ARGV[i], '\\n(.*)$')) or ''
end
return {version, pauses, redis.call('HKEYS', channels), redis.call('SMEMBERS', retries), registered, removals}
`
