import type { Script } from "../../Redis.ts"
import { checking } from "./parts/checks.ts"
import { makingStreams } from "./parts/streams.ts"
import { versioning } from "./parts/versioning.ts"

/**
 * Makes a channel known: registers it with its limits, creates its log, and tells running readers. The version goes up.
 *
 * KEYS: meta, channels, log. ARGV: channel, limits as JSON ("": as they are), events channel.
 * Reply: the last position in the log ("0-0" when it is new), from which a lost publish is searched.
 */
export const channel: Script = {
  name: "channel",
  lua: `
local meta, channels, log = KEYS[1], KEYS[2], KEYS[3]
local name, limits, events = ARGV[1], ARGV[2], ARGV[3]
${checking}
${makingStreams}
${versioning}
local problem = wrongType(meta, 'hash') or wrongType(channels, 'hash') or wrongType(log, 'stream')
if problem then return problem end
if redis.call('EXISTS', log) == 0 then makeStream(log) end
local known = redis.call('HGET', channels, name)
if not known or (limits ~= '' and known ~= limits) then
  redis.call('HSET', channels, name, limits)
  newVersion()
  if not known then redis.call('PUBLISH', events, 'channel\\n' .. name) end
end
local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
return last and last[1] or '0-0'
`
}
