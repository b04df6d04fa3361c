/**
 * Deduplication windows. The value of a window key is the position of the message that opened it (`@`: it waits for its time), the
 * name of the call that published it (`-`: none), and its id, with spaces between.
 */

/** `openWindow(key, position, owner, ms)`: opens a window; `owner` is call and id with a space between. */
export const openWindow = `
local function openWindow(key, position, owner, ms) redis.call('SET', key, position .. ' ' .. owner, 'PX', ms) end
`

/** `openerOf(value)`: position and call of a window. */
export const openerOf = `
local function openerOf(value) return string.match(value, '^(%S*) (%S*) ') end
`

/**
 * For waiting messages. `windowOf(body)`: the span of the window in ms, the call that opened it, and its key; nothing when the message
 * has none. `ownsWindow(key, call)`: whether the window is still the one that this call opened for a waiting message.
 */
export const windowOf = `${openerOf}
local function windowOf(body)
  if string.byte(body) ~= 119 then return nil end
  return string.match(string.sub(body, 1, (string.find(body, '\\n', 1, true) or 1) - 1), '^w(%d+) (%S+) (.*)$')
end
local function ownsWindow(key, call)
  local position, opener = openerOf(redis.call('GET', key) or '')
  return position == '@' and opener == call
end
`
