/**
 * Lua functions for the scripts that read and write marks. A mark is 13 digits, the time until which it counts, and for one that is
 * not done a space and the token of whoever is at it. What is none of these counts for nothing.
 *
 * The field '' of a hash of marks is about all of them: when the first was written, and until when the last of them counts, 13 digits
 * each. A hash is removed after that; no mark is removed earlier, and none counts longer, however seldom anybody looks.
 */
export const marking = `
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function millis(time) return string.format('%013.0f', time) end
local function timeOf(mark) return mark and tonumber(string.sub(mark, 1, 13)) end
local function tokenOf(mark) return mark and string.sub(mark, 15) end
local function isDone(mark) return mark and #mark == 13 and timeOf(mark) ~= nil end
local function spanOf(head, now) return timeOf(head) or now, head and tonumber(string.sub(head, 15)) or now end
local function headOf(started, last) return millis(started) .. ' ' .. millis(last) end
`
