import type { Script } from "../../../Redis.ts"
import { looking } from "../parts/looking.ts"

/**
 * Looks for messages in a log, behind a position; one bounded step (see `looking`).
 *
 * KEYS: log. ARGV: position, another one that is to be checked first ("": none), ids. Reply: {position it came to, 1 at the end of the log (else
 * 0), 1 when what was to be checked is gone (else 0), then for each message found: id, position}.
 *
 * A position was checked because it was confirmed to a client. Where older entries are there and it is not, a failover has taken the log
 * back, and what came later may have a lower position: then the log is looked at from its beginning.
 */
export const search: Script = {
  name: "search",
  lua: `
local log = KEYS[1]
local from, check, ids = ARGV[1], ARGV[2], ARGV
${looking}
local wanted = {}
for i = 3, #ids do wanted[ids[i]] = true end
local bytes, isGone = 0, false
if check ~= '' then
  local entry = next(log, check)
  isGone = not entry or entry[1] ~= check
  if isGone then entry = next(log, '-') end
  if entry then bytes = size(entry) end
  if isGone and entry and isBefore(entry[1], check) then from = '0-0' end
end
local found, at, isEnd = look(log, from, wanted, bytes)
local reply = {at, isEnd and 1 or 0, isGone and 1 or 0}
for id, position in pairs(found) do
  reply[#reply + 1] = id
  reply[#reply + 1] = position
end
return reply
`
}
