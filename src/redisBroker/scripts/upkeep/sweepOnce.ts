import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"
import { marking } from "../parts/marking.ts"

/**
 * Removes the marks of a group of which none counts any more; while the group begins something, `begin` does it, too.
 *
 * KEYS: marks, old marks. ARGV: for how many ms marks count that do not say it. Reply: how many of the two were removed.
 *
 * UNLINK frees in the background; an expiry time would free millions of marks at once, and hold up the server.
 */
export const sweepOnce: Script = {
  name: "sweepOnce",
  lua: `
local keys, keep = KEYS, tonumber(ARGV[1])
${checking}
${marking}
local problem = wrongType(keys[1], 'hash') or wrongType(keys[2], 'hash')
if problem then return problem end
local now, removed = clock(), 0
for i = 1, 2 do
  local key = keys[i]
  if redis.call('EXISTS', key) == 1 then
    local head = redis.call('HGET', key, '')
    local _, last = spanOf(head, now)
    if not head then
      -- It passes when memory is full and lets the rest pass.
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
}
