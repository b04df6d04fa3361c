import type { Script } from "../../Redis.ts"

/**
 * Adds a message to a channel's log unless it is there already: inside its deduplication window, or in the tail of the log
 * (after an answer was lost).
 *
 * KEYS: log, window key (the log again when there is no window). ARGV: id, name of this call, window in ms (0: none),
 * position to search from ("": do not search), longest search, number of trim arguments, trim arguments, fields of the entry.
 * Reply: {"added" | "found", position}, {"duplicate", what the window key holds}, {"more", position} when the search has to go on
 * from there, or {"unknown"} when the channel has no log. The window key holds the position, the name of the call that opened it
 * and the id, with spaces between: a repetition of that call has found its own message, not a duplicate.
 *
 * The XADD comes first among the writes: it alone can be refused when memory is full.
 */
export const append: Script = {
  name: "append",
  lua: `
local log, seen = KEYS[1], KEYS[2]
local id, call, window, since = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local longest, trims = tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('EXISTS', log) == 0 then return {'unknown'} end
if window > 0 then
  local first = redis.call('GET', seen)
  if first then
    local a = string.find(first, ' ', 1, true)
    local b = a and string.find(first, ' ', a + 1, true)
    if b and string.sub(first, a + 1, b - 1) == call then return {'found', string.sub(first, 1, a - 1)} end
    return {'duplicate', first}
  end
end
if since ~= '' then
  local entries = redis.call('XRANGE', log, '(' .. since, '+', 'COUNT', longest)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'i' and fields[i + 1] == id then
        if window > 0 then redis.call('SET', seen, entry[1] .. ' ' .. call .. ' ' .. id, 'PX', window) end
        return {'found', entry[1]}
      end
    end
  end
  if #entries == longest then return {'more', entries[#entries][1]} end
end
local command = {'XADD', log, 'NOMKSTREAM'}
for i = 7, 6 + trims do command[#command + 1] = ARGV[i] end
command[#command + 1] = '*'
for i = 7 + trims, #ARGV do command[#command + 1] = ARGV[i] end
local position = redis.call(unpack(command))
if window > 0 then redis.call('SET', seen, position .. ' ' .. call .. ' ' .. id, 'PX', window) end
return {'added', position}
`
}
