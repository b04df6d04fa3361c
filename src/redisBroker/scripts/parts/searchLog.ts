import { sizeOf } from "./entrySize.ts"
import { positions } from "./positions.ts"

/**
 * The search of a log for messages whose publish got no answer. It reads one entry at a time, because an entry is loaded whole: a call reads
 * at most 500 entries, and ends after 512 KiB of them. So it copies less than 512 KiB and one message.
 *
 * `entryFrom(log, position)`: the next entry. `searchLog(log, from, wanted, bytes)`: looks for the ids in `wanted` (id → true) behind the
 * position `from`, after `bytes` that were read before. Returns the positions of those it found, the position it came to, and whether
 * that was the end.
 */
export const searchLog = `${positions}${sizeOf}
local function entryFrom(log, position) return redis.call('XRANGE', log, position, '+', 'COUNT', 1)[1] end
local function searchLog(log, from, wanted, bytes)
  local found, at, read = {}, from, 0
  while read < 500 and bytes <= 524288 do
    local entry = entryFrom(log, '(' .. at)
    if not entry then return found, at, true end
    at, read, bytes = entry[1], read + 1, bytes + sizeOf(entry)
    local fields = entry[2]
    for i = 1, #fields, 2 do
      local id = fields[i] == 'i' and fields[i + 1]
      if id and wanted[id] and not found[id] then found[id] = at end
    end
  end
  return found, at, false
end
`
