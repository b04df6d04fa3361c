import type { Script } from "../../../Redis.ts"
import { checking } from "../parts/checks.ts"

/**
 * Leases dead letters to a reader of a named subscription: those whose lease or pause has ended, then new ones.
 *
 * KEYS: dead, offers, offered. ARGV: how many at most, lease in ms, token, "latest" to begin a new name with the next letter.
 * Reply: {letters, each as id, count of its offers, fields; ms until the next lease or pause ends (-1: none)}.
 *
 * The first write passes when memory is full and lets the rest pass: who handles dead letters frees memory. After about 1 MiB a call ends; what
 * it has not given is there for the next.
 *
 * A lost reply leaves its letters leased to nobody: they are offered again when the lease ends. `cursor` is kept in `offered` beside the
 * letters, whose ids have a dash.
 */
export const offerLetters: Script = {
  name: "offerLetters",
  lua: `
local dead, offers, offered = KEYS[1], KEYS[2], KEYS[3]
local limit, lease, token, start = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
${checking}
local problem = wrongType(dead, 'stream') or wrongType(offers, 'zset') or wrongType(offered, 'hash')
if problem then return problem end
redis.call('ZREM', offers, '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local letters, bytes, longest = {}, 0, 1048576
local function give(entry, count)
  redis.call('ZADD', offers, now + lease, entry[1])
  redis.call('HSET', offered, entry[1], count .. '\\n' .. token)
  letters[#letters + 1] = {entry[1], count, entry[2]}
  for _, field in ipairs(entry[2]) do bytes = bytes + #field end
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
  if bytes >= longest then break end
end
local cursor = redis.call('HGET', offered, 'cursor')
if not cursor then
  local last = start == 'latest' and redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  cursor = last and last[1] or '0-0'
  redis.call('HSET', offered, 'cursor', cursor)
end
local from, last = '(' .. cursor, nil
while #letters < limit and bytes < longest do
  local found = redis.pcall('XRANGE', dead, from, '+', 'COUNT', 1)
  if found.err then
    -- Another program has written there what is no position.
    if from == '-' then return found end
    from = '-'
  elseif found[1] then
    give(found[1], 1)
    last = found[1][1]
    from = '(' .. last
  else
    break
  end
end
if last then redis.call('HSET', offered, 'cursor', last) end
local first = tonumber(redis.call('ZRANGE', offers, 0, 0, 'WITHSCORES')[2])
return {letters, first and math.max(1, math.ceil(first - now)) or -1}
`
}
