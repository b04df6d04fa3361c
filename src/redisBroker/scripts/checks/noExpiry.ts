import { idempotentScript } from "../../script.ts"

/**
 * Whether a key that is kept for a time has no expiry.
 *
 * KEYS: the key.
 * ARGV: `check` or `repair`, ms after which it is to end (0: at once).
 * Reply: 1 when it is so, else 0.
 */
export const noExpiry = idempotentScript("noExpiry")`
local key = KEYS[1]
local step, ms = ARGV[1], ARGV[2]
if redis.call('PTTL', key) ~= -1 then return 0 end
if step == 'repair' then
  if ms == '0' then redis.call('DEL', key) else redis.call('PEXPIRE', key, ms) end
end
return 1
`
