import { idempotentScript } from "../../script.ts"
import { wrongType } from "../parts/preconditions.ts"
import { onceKeys } from "../parts/onceKeys.ts"
import { clock } from "../parts/time.ts"

/**
 * Removes the idempotency keys of a group when none of them counts any more. While the group begins deliveries, `beginOnce` does that, too.
 *
 * KEYS: once, older once.
 * ARGV: ms for which keys count when their hash does not say until when.
 * Reply: the number of removed hashes.
 *
 * UNLINK frees in the background; an expiry time would free millions of keys at once, and hold up the server.
 *
 * Writes: HDEL passes when memory is full, and lets the rest pass.
 */
export const sweepOnce = idempotentScript("sweepOnce")`
local keys, keep = KEYS, tonumber(ARGV[1])
${wrongType}${clock}${onceKeys}
local found = {}
for i = 1, 2 do
  local problem
  problem, found[i] = wrongType(keys[i], 'hash')
  if problem then return problem end
end
if found[1] == 'none' and found[2] == 'none' then return 0 end
local now, removed = clock(), 0
for i = 1, 2 do
  local key = keys[i]
  if found[i] ~= 'none' then
    local head = redis.call('HGET', key, '')
    local _, last = spanOf(head, now)
    if not head then
      redis.call('HDEL', key, 'none')
      redis.call('HSET', key, '', headOf(now, now + keep))
    elseif last <= now then
      redis.call('UNLINK', key)
      removed = removed + 1
    end
  end
end
return removed
`
