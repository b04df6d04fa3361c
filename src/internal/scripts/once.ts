import type { Script } from "../../Redis.ts"

/**
 * Moves one key of the Deduplication service: free, being done under a token, done.
 *
 * KEYS: the key. ARGV: step, token, ms. Reply: {outcome, ms}.
 * `begin`: free or being done under this token: begins for `ms`, {"mine"}; {"done", ms left}; {"busy", ms left}.
 * `renew`: as `begin`, but not for a key that is free. `finish`: done for `ms`, {"done"}; {"lost"}; for a second one {"already"}.
 * `free`: free again, {"free"}; {"lost"}. `forget`: a done key is free, {"free"}; {"lost"} for any other.
 *
 * The value is the token while it is being done, and `=` with the token when it is done.
 */
export const once: Script = {
  name: "once",
  lua: `
local key = KEYS[1]
local step, token, ms = ARGV[1], ARGV[2], ARGV[3]
local value = redis.call('GET', key)
local done = value and string.sub(value, 1, 1) == '='
if step == 'forget' then
  if not done then return {'lost', 0} end
  redis.call('DEL', key)
  return {'free', 0}
end
if step == 'finish' then
  if value == '=' .. token then return {'already', 0} end
  if value ~= token then return {'lost', 0} end
  redis.call('SET', key, '=' .. token, 'PX', ms)
  return {'done', 0}
end
if step == 'free' then
  if value ~= token then return {'lost', 0} end
  redis.call('DEL', key)
  return {'free', 0}
end
if done then return {'done', redis.call('PTTL', key)} end
if value and value ~= token then return {'busy', redis.call('PTTL', key)} end
if not value and step == 'renew' then return {'lost', 0} end
redis.call('SET', key, token, 'PX', ms)
return {'mine', 0}
`
}
