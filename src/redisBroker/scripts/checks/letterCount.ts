import { idempotentScript } from "../../script.ts"
import { streamInfo } from "../parts/streamInfo.ts"

/**
 * Whether a number of dead letters is still wrong: as many letters are there, and as many were ever added, as when they were counted. Repair
 * writes the right one.
 *
 * KEYS: dead, counts.
 * ARGV: `check` or `repair`, letters ever added, letters there, field, the right number.
 * Reply: 1 when it is so, else 0.
 */
export const letterCount = idempotentScript("letterCount")`
local dead, counts = KEYS[1], KEYS[2]
local step, added, length, field, right = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
${streamInfo}
local there, ever = 0, 0
if redis.call('EXISTS', dead) == 1 then
  local info = infoOf(dead)
  there, ever = info['length'], info['entries-added']
end
if there ~= length or ever ~= added then return 0 end
if (tonumber(redis.call('HGET', counts, field)) or 0) == right then return 0 end
if step == 'repair' then
  if right == 0 then redis.call('HDEL', counts, field) else redis.call('HSET', counts, field, right) end
end
return 1
`
