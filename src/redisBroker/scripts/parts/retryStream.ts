import { counters } from "../../counters.ts"
import { memberEvents } from "../../eventNames.ts"
import { makeStream } from "./makeStream.ts"
import { newVersion } from "./registryVersion.ts"

/**
 * `listRetries(retries, group, channel)`: lists a channel among those with a retry stream of the group. Where that is new the version of
 * the registry goes up and the consumers of the group are told. The script has the keys as locals `meta` and `events`.
 */
export const listRetries = `${newVersion}
local function listRetries(retries, group, channel)
  if redis.call('SADD', retries, channel) == 1 then
    newVersion()
    redis.call('PUBLISH', events, '${memberEvents.retry}\\n' .. group .. '\\n' .. channel)
  end
end
`

/**
 * The same, and `openRetries(isThere, retry, retries, group, channel)`: makes the retry stream where it is missing, then lists it. A new
 * stream has settled nothing: the total of one that was deleted goes. The script has the key as local `counts`.
 */
export const openRetries = `${makeStream}${listRetries}
local function openRetries(isThere, retry, retries, group, channel)
  if not isThere then
    makeStream(retry, group)
    redis.call('HDEL', counts, '${counters.settledRetries}\\n' .. group .. '\\n' .. channel)
  end
  listRetries(retries, group, channel)
end
`
