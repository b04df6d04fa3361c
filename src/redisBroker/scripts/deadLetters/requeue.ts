import { script } from "../../script.ts"
import { noRoom } from "../parts/preconditions.ts"
import { countOffKey } from "../parts/counting.ts"
import { openRetries } from "../parts/retryStream.ts"

/**
 * Moves dead letters back to the groups that failed: into the retry stream of each, as a message that begins anew. A second caller finds a
 * letter gone.
 *
 * KEYS: dead, counts, meta, then for each target its retry stream and the retries of its group.
 * ARGV: events channel, number of targets, for each target its group and channel, then for each letter: id, index of its target from 1,
 * reason, body.
 * Reply: the ids of the moved letters, none in a second run. Those of a group that was removed wait until it is there again.
 *
 * Writes: types and room are checked first. XDEL is the first write of each letter: it tells whether the letter was still there, without
 * reading it, passes when memory is full, and lets the rest pass.
 */
export const requeueLetters = script("requeueLetters")`
local dead, counts, meta = KEYS[1], KEYS[2], KEYS[3]
local events, targets = ARGV[1], tonumber(ARGV[2])
${noRoom}${countOffKey}${openRetries}
local problem = wrongType(dead, 'stream') or wrongType(counts, 'hash') or wrongType(meta, 'hash')
local wanted, bytes = {}, 0
for i = 3 + 2 * targets, #ARGV, 4 do
  local target = tonumber(ARGV[i + 1])
  wanted[target] = (wanted[target] or 0) + 1
  bytes = bytes + #ARGV[i + 3]
end
for i = 1, targets do
  problem = problem or noRoom(KEYS[2 + 2 * i], wanted[i] or 0, bytes) or wrongType(KEYS[3 + 2 * i], 'set')
end
if problem then return problem end
local moved, isOpen = {}, {}
for i = 3 + 2 * targets, #ARGV, 4 do
  local id, target, reason, body = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  if redis.call('XDEL', dead, id) == 1 then
    local retry, retries = KEYS[2 + 2 * target], KEYS[3 + 2 * target]
    local group, channel = ARGV[1 + 2 * target], ARGV[2 + 2 * target]
    if not isOpen[target] then openRetries(redis.call('EXISTS', retry) == 1, retry, retries, group, channel) end
    isOpen[target] = true
    redis.call('XADD', retry, '*', 'b', body)
    countOffKey(group .. '\\n' .. channel .. '\\n' .. reason)
    moved[#moved + 1] = id
  end
end
return moved
`
