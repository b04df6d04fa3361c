import { idempotentScript } from "../../script.ts"

/**
 * Moves one key of the Deduplication service between its states: free, in progress under a token, done.
 *
 * KEYS: the key, the proof that the token has finished it.
 * ARGV: step, token, ms, ms for which the proof is kept.
 * Reply: {outcome, ms}.
 *
 * The steps: `begin`: a key that is free or in progress under this token is in progress for `ms`, {"mine"}; {"done", ms left}; {"busy", ms
 * left}. `renew`: as `begin`, but not for a free key. `finish`: done for `ms`, {"done"}; {"lost"}; for a second one {"already"}. `free`: free
 * again, {"free"}; {"lost"}. `forget`: a done key is free, {"free"}; {"lost"} for any other.
 *
 * The value is the token while the key is in progress, and `=` with the token when it is done. A proof is written where the key stays done for
 * a shorter time than the proof: the reply may be lost, and asked for again when the key is free or has another token.
 */
export const deduplicate = idempotentScript("deduplicate")`
local key, proof = KEYS[1], KEYS[2]
local step, token, ms, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local value = redis.call('GET', key)
local done = value and string.sub(value, 1, 1) == '='
if step == 'forget' then
  if not done then return {'lost', 0} end
  redis.call('DEL', key)
  return {'free', 0}
end
if step == 'finish' then
  if value ~= token then
    return {(value == '=' .. token or redis.call('EXISTS', proof) == 1) and 'already' or 'lost', 0}
  end
  redis.call('SET', key, '=' .. token, 'PX', ms)
  if tonumber(ms) < tonumber(kept) then redis.call('SET', proof, '', 'PX', kept) end
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
