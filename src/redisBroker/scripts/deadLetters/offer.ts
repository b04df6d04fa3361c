import { script } from "../../script.ts"
import { sizeOf } from "../parts/entrySize.ts"
import { wrongType } from "../parts/preconditions.ts"
import { clock, firstTime } from "../parts/time.ts"

/**
 * Leases dead letters to a reader of a named subscription: those whose lease or pause has ended, then new ones.
 *
 * KEYS: dead, offers, offered.
 * ARGV: at most how many, lease in ms, token, "latest" to begin a new name with the next letter.
 * Reply: {letters, each as id, count of its offers, fields; ms until the next lease or pause ends (-1: none)}. After about 1 MiB a call ends;
 * the other letters are there for the next.
 *
 * A lost reply leaves its letters leased to no reader: they are offered again when the lease ends. `cursor` is kept in `offered` beside the
 * letters, whose ids have a dash.
 *
 * Writes: the first one passes when memory is full, and lets the rest pass: handling dead letters frees memory.
 */
export const offerLetters = script("offerLetters")`
local dead, offers, offered = KEYS[1], KEYS[2], KEYS[3]
local limit, lease, token, start = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
${wrongType}
local problem = wrongType(dead, 'stream') or wrongType(offers, 'zset') or wrongType(offered, 'hash')
if problem then return problem end
redis.call('ZREM', offers, '')
${clock}${firstTime}${sizeOf}
local now = clock()
local letters, bytes, longest = {}, 0, 1048576
local function give(entry, count)
  redis.call('ZADD', offers, now + lease, entry[1])
  redis.call('HSET', offered, entry[1], count .. '\\n' .. token)
  letters[#letters + 1] = {entry[1], count, entry[2]}
  bytes = bytes + sizeOf(entry)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', offers, '-inf', now, 'LIMIT', 0, limit)) do
  -- Another program may have written a member that is no position.
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
    -- Another program has written a cursor that is no position.
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
local first = firstTime(offers)
return {letters, first and math.max(1, math.ceil(first - now)) or -1}
`
