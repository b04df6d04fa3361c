import type { Script } from "../../../Redis.ts"
import { looking } from "../parts/looking.ts"

/**
 * Adds a message to a channel's log unless it is there already: inside its deduplication window, or in the log (after an answer was lost).
 *
 * KEYS: log, window key (the log again: no window), what this call was told (the log again: its window key tells it).
 * ARGV: id, name of this call, window in ms (0: none), ms for which it is kept what the call was told, then for a search: position from which
 * the log has not been looked at ("": no search), position behind which the message is if it was stored, 1 when that was gone (else 0), ms since
 * it was sent, ms for which what is acknowledged stays in the log, and the channel's maximal length
 * (-1: none), maximal age in ms (0: none) and minimal position ("": none); then the fields.
 *
 * Reply: {"added" | "found", position}; {"duplicate", what the window key holds}; {"more", position} when the search has to go on from there; {"gone"} when the message may have been stored and removed since; {"unknown"} when the channel has
 * no log. The window key holds the position, the name of the call that opened it and the id, with spaces between: a repetition of that
 * call has found its own message, not a duplicate.
 *
 * Entries go from the head of a log only. So nothing is gone of what was stored behind a position where the first entry is not behind it; nor where
 * the first entry is older than the message; or where the message is too young to be removed for being
 * acknowledged, or no group has been handed anything behind that position, and no limit can have removed it: not by length while the log is
 * shorter.
 *
 * The XADD comes first among the writes: it alone can be refused when memory is full.
 */
export const append: Script = {
  name: "append",
  lua: `
local log, seen, told = KEYS[1], KEYS[2], KEYS[3]
local id, call, window, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local from, since, isGone, sent, grace = ARGV[5], ARGV[6], ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9])
local longest, oldest, least = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local args = ARGV
if redis.call('EXISTS', log) == 0 then return {'unknown'} end
local opened = window > 0 and redis.call('GET', seen)
if opened then
  local position, opener = string.match(opened, '^(%S*) (%S*) ')
  if opener == call then return {'found', position} end
end
local before = told ~= log and redis.call('GET', told)
if before then return {'found', before} end
local function open(position)
  if window > 0 then redis.call('SET', seen, position .. ' ' .. call .. ' ' .. id, 'PX', window) end
end
-- Most calls search for nothing: they do not pay for the functions either.
if from ~= '' then
${looking}
  local function isWhole()
    local time = redis.call('TIME')
    local born = string.format('%.0f-0', math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - sent))
    local first = next(log, '-')
    if first and (isBefore(first[1], born) or not isGone and not isBefore(since, first[1])) then return true end
    if longest >= 0 and redis.call('XLEN', log) >= longest then return false end
    if oldest > 0 and sent >= oldest then return false end
    if least ~= '' and isBefore(born, string.find(least, '-', 1, true) and least or least .. '-0') then return false end
    if sent < grace then return true end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
      if isBefore(since, group[8]) then return false end
    end
    -- A log that a failover has taken back behind that position says nothing by its groups.
    return not isBefore(first and first[1] or redis.call('XINFO', 'STREAM', log)[8], since)
  end
  local found, at, isEnd = look(log, from, {[id] = true}, 0)
  if found[id] then
    if not opened then open(found[id]) end
    return {'found', found[id]}
  end
  if not isEnd then return {'more', at} end
  if not opened and not isWhole() then return {'gone'} end
end
if opened then return {'duplicate', opened} end
local position = redis.call('XADD', log, 'NOMKSTREAM', '*', unpack(args, 13))
open(position)
if told ~= log then redis.call('SET', told, position, 'PX', kept) end
return {'added', position}
`
}
