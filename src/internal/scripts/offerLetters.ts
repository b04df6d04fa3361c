import type { Script } from "../../Redis.ts"

/**
 * Leases dead letters to a reader of a named subscription: those whose lease or pause has ended, then new ones.
 *
 * KEYS: dead, offers, offered. ARGV: how many at most, lease in ms, token, "latest" to begin a new name with the next letter.
 * Reply: {letters, each as id, count of its offers, fields; ms until the next lease or pause ends (-1: none)}.
 *
 * A lost reply leaves its letters leased to nobody: they are offered again when the lease ends. `cursor` is kept in `offered` beside the
 * letters, whose ids have a dash.
 */
export const offerLetters: Script = {
  name: "offerLetters",
  lua: `
local dead, offers, offered = KEYS[1], KEYS[2], KEYS[3]
local limit, lease, token, start = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local letters = {}
local function give(entry, count)
  redis.call('ZADD', offers, now + lease, entry[1])
  redis.call('HSET', offered, entry[1], count .. '\\n' .. token)
  letters[#letters + 1] = {entry[1], count, entry[2]}
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', offers, '-inf', now, 'LIMIT', 0, limit)) do
  -- Another program may have written what is no position.
  local found = redis.pcall('XRANGE', dead, id, id)
  if found.err and not string.find(found.err, 'Invalid', 1, true) then return found end
  local entry = found[1]
  if entry then
    give(entry, tonumber(string.match(redis.call('HGET', offered, id) or '', '^%d+') or '0') + 1)
  else
    redis.call('ZREM', offers, id)
    redis.call('HDEL', offered, id)
  end
end
local cursor = redis.call('HGET', offered, 'cursor')
if not cursor then
  local last = start == 'latest' and redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  cursor = last and last[1] or '0-0'
  redis.call('HSET', offered, 'cursor', cursor)
end
if #letters < limit then
  local new = redis.pcall('XRANGE', dead, '(' .. cursor, '+', 'COUNT', limit - #letters)
  if new.err and string.find(new.err, 'Invalid', 1, true) then new = redis.call('XRANGE', dead, '-', '+', 'COUNT', limit - #letters) end
  if new.err then return new end
  for _, entry in ipairs(new) do give(entry, 1) end
  if #new > 0 then redis.call('HSET', offered, 'cursor', new[#new][1]) end
end
local first = tonumber(redis.call('ZRANGE', offers, 0, 0, 'WITHSCORES')[2])
return {letters, first and math.max(1, math.ceil(first - now)) or -1}
`
}
