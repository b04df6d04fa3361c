import { idempotentScript } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"

/**
 * How a recurring message is broken: `tick` when it has a next tick and no definition; `definition` the other way round.
 *
 * KEYS: ticks, recurring.
 * ARGV: `check` or `repair`, which of the two, key, the next tick, events channel.
 * Reply: 1 when it is so, else 0.
 *
 * Repair removes a tick without a definition, and gives a definition its next tick.
 */
export const brokenRecurrence = idempotentScript("brokenRecurrence")`
local ticks, recurring = KEYS[1], KEYS[2]
local step, kind, key, at, events = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ticking, defined = redis.call('ZSCORE', ticks, key), redis.call('HEXISTS', recurring, key) == 1
if kind == 'tick' and not (ticking and not defined) then return 0 end
if kind == 'definition' and not (defined and not ticking) then return 0 end
if step == 'repair' then
  if kind == 'tick' then
    redis.call('ZREM', ticks, key)
  else
    redis.call('ZADD', ticks, at, key)
    redis.call('PUBLISH', events, '${signalEvents.tick}')
  end
end
return 1
`
