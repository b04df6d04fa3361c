/**
 * Idempotency keys of a group: the hash `once` and, of the time before, `older`. A value is the time until which it counts, 13 digits, and,
 * while the key is not done, a space and the token of the consumer that works on it. Any other value counts for nothing.
 *
 * The field '' of a hash is about all of its keys: when the first was written, and until when the last of them counts, 13 digits each. A
 * hash is removed after that; no key is removed earlier, and none counts longer, however seldom the hash is read.
 */

/** `tokenOf(value)`. */
export const tokenOf = `
local function tokenOf(value) return value and string.sub(value, 15) end
`

/** The same, and `millis(time)`: a time as it is written; `timeOf(value)`; `isDone(value)`; `spanOf(head, now)` and `headOf(started, last)`: the field ''. */
export const onceKeys = `${tokenOf}
local function millis(time) return string.format('%013.0f', time) end
local function timeOf(value) return value and tonumber(string.sub(value, 1, 13)) end
local function isDone(value) return value and #value == 13 and timeOf(value) ~= nil end
local function spanOf(head, now) return timeOf(head) or now, head and tonumber(string.sub(head, 15)) or now end
local function headOf(started, last) return millis(started) .. ' ' .. millis(last) end
`
