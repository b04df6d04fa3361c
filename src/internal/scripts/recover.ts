import type { Script } from "../../Redis.ts"

/**
 * Gives a consumer again what was handed out to it in an answer that never arrived. The lease starts anew and the delivery
 * count stays, because nobody has seen these; what is somebody else's by now stays his.
 *
 * KEYS: the stream. ARGV: group, consumer, positions.
 * Reply: {position, fields, delivery count} for each that was its own and still has its message.
 */
export const recover: Script = {
  name: "recover",
  lua: `
local stream = KEYS[1]
local group, consumer = ARGV[1], ARGV[2]
local found = {}
for i = 3, #ARGV do
  local lease = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1)[1]
  if lease and lease[2] == consumer then
    local count = math.max(1, lease[4])
    local entry = redis.call('XCLAIM', stream, group, consumer, 0, ARGV[i], 'RETRYCOUNT', count)[1]
    if entry then found[#found + 1] = {entry[1], entry[2], count} end
  end
end
return found
`
}
