import type { Script } from "../../../Redis.ts"

/**
 * Gives a consumer again what was handed out to it in an answer that never arrived. The lease starts anew and the delivery
 * count stays, because nobody has seen these; what is somebody else's by now stays his.
 *
 * KEYS: the stream, trials of the group and channel. ARGV: group, consumer, kind (`l` or `r`), positions.
 * Reply: {position, fields, delivery count, what is noted of its trials or ""} for each that was its own and still has its message.
 */
export const recover: Script = {
  name: "recover",
  lua: `
local stream, trials = KEYS[1], KEYS[2]
local group, consumer, kind = ARGV[1], ARGV[2], ARGV[3]
local isTried = redis.call('TYPE', trials).ok == 'hash'
local found = {}
for i = 4, #ARGV do
  local lease = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if lease and lease[2] == consumer then
    local count = math.max(1, lease[4])
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'RETRYCOUNT', count)[1]
    if entry then
      local tried = isTried and redis.call('HGET', trials, kind .. ARGV[i]) or ''
      found[#found + 1] = {entry[1], entry[2], count, tried}
    end
  end
end
return found
`
}
