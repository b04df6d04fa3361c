/**
 * A Lua function for the scripts that search a log for messages whose publish got no answer. It reads one entry at a time, because an entry
 * is loaded whole: a call looks at 500 entries at most, and ends after 512 KiB of them, so it copies less than 512 KiB and two messages.
 *
 * `look(log, from, wanted)` looks for the ids in `wanted` (id → true) behind the position `from`. It gives the positions of those it found, the
 * position it came to, whether all that was stored behind `from` is still there, and whether this was the end. The entry at `from` proves
 * it: entries go from the head of a log only. Where older entries are there and this one is not, a failover has taken it back, and what
 * came later may have a lower position: the whole log is looked at.
 */
export const looking = `
local function isBefore(a, b)
  local aTime, aSequence = string.match(a, '^(%d+)-(%d+)$')
  local bTime, bSequence = string.match(b, '^(%d+)-(%d+)$')
  aTime, bTime = tonumber(aTime), tonumber(bTime)
  return aTime < bTime or (aTime == bTime and tonumber(aSequence) < tonumber(bSequence))
end
local function look(log, from, wanted)
  local function after(position) return redis.call('XRANGE', log, position, '+', 'COUNT', 1)[1] end
  local found, at, looked, bytes = {}, from, 0, 0
  local entry = after(from)
  local isWhole = entry and entry[1] == from
  if isWhole then
    entry = after('(' .. from)
  else
    local first = after('-')
    if first and isBefore(first[1], from) then entry = first end
  end
  while entry do
    at, looked = entry[1], looked + 1
    local fields = entry[2]
    for i = 1, #fields, 2 do
      bytes = bytes + #fields[i + 1]
      if fields[i] == 'i' and wanted[fields[i + 1]] and not found[fields[i + 1]] then found[fields[i + 1]] = at end
    end
    if looked == 500 or bytes > 524288 then return found, at, isWhole, false end
    entry = after('(' .. at)
  end
  return found, at, isWhole, true
end
`
