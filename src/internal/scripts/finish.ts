import type { Script } from "../../Redis.ts"

/**
 * Acknowledges deliveries of one stream and remembers their keys as done, each only while its mark has this token. The mark is the
 * fence: whoever handles another delivery with this key, or the same after its lease expired, has another token.
 *
 * KEYS: the stream, marks, old marks. ARGV: group, then for each delivery: position, mark, token.
 * Reply: for each delivery 1 (done), 0 (the mark is another's, or gone) or 2 (the key was done before).
 *
 * XACK is the first write: it passes when memory is full, and lets the rest pass.
 */
export const finish: Script = {
  name: "finish",
  lua: `
local stream, marks, old = KEYS[1], KEYS[2], KEYS[3]
local group = ARGV[1]
local names, count = {}, 0
for i = 3, #ARGV, 3 do
  count = count + 1
  names[count] = ARGV[i]
end
local current = redis.call('HMGET', marks, unpack(names))
local ack, done, reply, size = {'XACK', stream, group}, {'HSET', marks}, {}, 0
for i = 1, count do
  local value = current[i] or redis.call('HGET', old, names[i])
  if value == '' then
    reply[i] = 2
  elseif value and string.sub(value, 15) == ARGV[i * 3 + 1] then
    reply[i] = 1
    size = size + 1
    ack[size + 3] = ARGV[i * 3 - 1]
    done[size * 2 + 1] = names[i]
    done[size * 2 + 2] = ''
  else
    reply[i] = 0
  end
end
if size > 0 then
  redis.call(unpack(ack))
  redis.call(unpack(done))
end
return reply
`
}
