import { bodyFields } from "./bodyFields.ts"
import { openWindow } from "./window.ts"

/**
 * `scheduleMessage(log, waiting, bodies, message, now)`: lets a message wait until it is due, or adds one that is due to the log. A message
 * that waits already, or whose window is open, is not stored; one that replaces a waiting message takes its place.
 *
 * A message has `id`, `member` (of waiting), `due`, `body`, `replace`, `call`, `window` (ms, 0: none) and `key` (of its window). Returns
 * "scheduled", or "stored" and the position, or "duplicate" and the key of the open window (nothing: it waits).
 */
export const scheduleMessage = `${bodyFields}${openWindow}
local function scheduleMessage(log, waiting, bodies, message, now)
  local id, due, window = message.id, message.due, message.window
  local waits = redis.call('HEXISTS', bodies, id) == 1
  if waits and not message.replace then return 'duplicate' end
  if not waits and window > 0 and redis.call('EXISTS', message.key) == 1 then return 'duplicate', message.key end
  if due <= now and not waits then
    local position = redis.call('XADD', log, '*', fieldsOf(id, message.body, 0))
    if window > 0 then openWindow(message.key, position, message.call .. ' ' .. id, window) end
    return 'stored', position
  end
  redis.call('HSET', bodies, id, message.body)
  redis.call('ZADD', waiting, due, message.member)
  if window > 0 then openWindow(message.key, '@', message.call .. ' ' .. id, due - now + window) end
  return 'scheduled'
end
`
