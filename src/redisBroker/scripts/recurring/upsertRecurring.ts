import { idempotentScript } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"
import { wrongType } from "../parts/preconditions.ts"

/**
 * Stores the definition of a recurring message. With the same recurrence and channel as before it keeps its next tick, so that a restart of the
 * program that defines it skips none.
 *
 * KEYS: recurring, ticks.
 * ARGV: events channel, key, recurrence and channel, body, time of the next tick, how.
 * Reply: the next tick; "" when there is nothing to replace.
 *
 * How: `set`; `replace` only a definition that is there by this key, with its next tick (in a shard that it is to leave); `keep` one that is
 * there by this key.
 */
export const upsertRecurring = idempotentScript("upsertRecurring")`
local recurring, ticks = KEYS[1], KEYS[2]
local events, key, head, body, at, how = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] or 'set'
${wrongType}
local problem = wrongType(ticks, 'zset') or wrongType(recurring, 'hash')
if problem then return problem end
local before = redis.call('HGET', recurring, key)
local stays = how == 'set' and before and string.sub(before, 1, #head + 1) == head .. '\\n' and redis.call('ZSCORE', ticks, key)
if how == 'replace' and not before then return '' end
if how == 'keep' and before then return redis.call('ZSCORE', ticks, key) or '' end
redis.call('HSET', recurring, key, head .. '\\n' .. body)
if stays then return stays end
redis.call('ZADD', ticks, at, key)
redis.call('PUBLISH', events, '${signalEvents.tick}')
return at
`
