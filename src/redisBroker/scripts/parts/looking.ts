/**
 * Lua functions for the scripts that search a log for messages whose publish got no answer. They read one entry at a time, because an entry is
 * loaded whole: a call looks at 500 entries at most, and ends after 512 KiB of them. So it copies less than 512 KiB and one message.
 *
 * `look(log, from, wanted, bytes)` looks for the ids in `wanted` (id → true) behind the position `from`; `bytes` is what was read before. It gives
 * the positions of those it found, the position it came to, and whether this was the end.
 */
export const looking = `
local function isBefore(a, b)
  local aTime, aSequence = string.match(a, '^(%d+)-(%d+)$')
  local bTime, bSequence = string.match(b, '^(%d+)-(%d+)$')
  aTime, bTime = tonumber(aTime), tonumber(bTime)
  return aTime < bTime or (aTime == bTime and tonumber(aSequence) < tonumber(bSequence))
end
local function next(log, position) return redis.call('XRANGE', log, position, '+', 'COUNT', 1)[1] end
local function size(entry)
  local bytes = 0
  for i = 2, #entry[2], 2 do bytes = bytes + #entry[2][i] end
  return bytes
end
local function look(log, from, wanted, bytes)
  local found, at, looked = {}, from, 0
  while looked < 500 and bytes <= 524288 do
    local entry = next(log, '(' .. at)
    if not entry then return found, at, true end
    at, looked, bytes = entry[1], looked + 1, bytes + size(entry)
    local fields = entry[2]
    for i = 1, #fields, 2 do
      local id = fields[i] == 'i' and fields[i + 1]
      if id and wanted[id] and not found[id] then found[id] = at end
    end
  end
  return found, at, false
end
`
