import { idempotentScript } from "../../script.ts"
import { searchLog } from "../parts/searchLog.ts"

/**
 * Searches a log for messages, behind a position, in one bounded step (see `searchLog`).
 *
 * KEYS: log.
 * ARGV: position, another one to be checked first ("": none), ids.
 * Reply: {position it came to, 1 at the end of the log (else 0), 1 when the checked position is gone (else 0), then for each message found:
 * id, position}.
 *
 * The checked position was confirmed to a client. Where older entries are there and it is not, a failover has taken the log back, and later
 * messages may have lower positions: then the log is read from its beginning.
 */
export const search = idempotentScript("search")`
local log = KEYS[1]
local from, check, ids = ARGV[1], ARGV[2], ARGV
${searchLog}
local wanted = {}
for i = 3, #ids do wanted[ids[i]] = true end
local bytes, isGone = 0, false
if check ~= '' then
  local entry = entryFrom(log, check)
  isGone = not entry or entry[1] ~= check
  if isGone then entry = entryFrom(log, '-') end
  bytes = sizeOf(entry)
  if isGone and entry and isLower(entry[1], check) then from = '0-0' end
end
local found, at, isEnd = searchLog(log, from, wanted, bytes)
local reply = {at, isEnd and 1 or 0, isGone and 1 or 0}
for id, position in pairs(found) do
  reply[#reply + 1] = id
  reply[#reply + 1] = position
end
return reply
`
