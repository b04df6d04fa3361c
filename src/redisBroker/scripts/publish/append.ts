import { idempotentScript } from "../../script.ts"
import { searchLog } from "../parts/searchLog.ts"
import { clock } from "../parts/time.ts"
import { openerOf, openWindow } from "../parts/window.ts"

/**
 * Adds a message to the log of a channel unless it is there already: inside its deduplication window, or, after a reply was lost, in the log.
 *
 * KEYS: log, window key (the log again: no window), answer of this call (the log again: its window tells the answer).
 * ARGV: id, name of this call, window in ms (0: none), ms for which the answer is kept; then for a search: position behind which the log
 * has not been read ("": no search), position behind which the message is if it was stored, 1 when that was gone (else 0), ms since the
 * message was sent, ms for which acknowledged entries stay in the log, and the limits of the channel: maximal length (-1: none), maximal age
 * in ms (0: none), minimal position ("": none); then the fields.
 * Reply: {"added" | "found", position}; {"duplicate", value of the window}; {"more", position} when the search has to go on from there; {"gone"}
 * when the message may have been stored and removed since; {"unknown"} when the channel has no log.
 *
 * A window that this very call opened is no duplicate: the call is repeated, and finds its own message.
 *
 * Entries leave a log at its head only. So no message is gone that was stored behind a position where the first entry is not behind that
 * position, or where the first entry is older than the message. Nor is one gone where the message is too young to be removed for being
 * acknowledged, or no group has been handed an entry behind that position, and no limit can have removed it: by length only while the log is
 * that long.
 *
 * Writes: XADD comes first. It alone can be refused when memory is full.
 */
export const append = idempotentScript("append")`
local log, seen, answer = KEYS[1], KEYS[2], KEYS[3]
local id, call, window, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local from, since, isGone, sent, grace = ARGV[5], ARGV[6], ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local longest, oldest, least = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local args = ARGV
${openWindow}
if redis.call('EXISTS', log) == 0 then return {'unknown'} end
local opened = window > 0 and redis.call('GET', seen)
if opened then
${openerOf}
  local position, opener = openerOf(opened)
  if opener == call then return {'found', position} end
end
local before = answer ~= log and redis.call('GET', answer)
if before then return {'found', before} end
local owner = call .. ' ' .. id
-- Most calls search for nothing: they do not pay for these functions.
if from ~= '' then
${searchLog}${clock}
  local function isWhole()
    local born, first = positionAt(clock() - sent), entryFrom(log, '-')
    if first and (isLower(first[1], born) or not isGone and not isLower(since, first[1])) then return true end
    if longest >= 0 and redis.call('XLEN', log) >= longest then return false end
    if oldest > 0 and sent >= oldest then return false end
    if least ~= '' and isLower(born, least) then return false end
    if sent < grace then return true end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
      if isLower(since, group[8]) then return false end
    end
    -- A failover may have taken the log back behind that position: then its groups prove nothing.
    return not isLower(first and first[1] or redis.call('XINFO', 'STREAM', log)[8], since)
  end
  local found, at, isEnd = searchLog(log, from, {[id] = true}, 0)
  if found[id] then
    if window > 0 and not opened then openWindow(seen, found[id], owner, window) end
    return {'found', found[id]}
  end
  if not isEnd then return {'more', at} end
  if not opened and not isWhole() then return {'gone'} end
end
if opened then return {'duplicate', opened} end
local position = redis.call('XADD', log, 'NOMKSTREAM', '*', unpack(args, 13))
if window > 0 then openWindow(seen, position, owner, window) end
if answer ~= log then redis.call('SET', answer, position, 'PX', kept) end
return {'added', position}
`
