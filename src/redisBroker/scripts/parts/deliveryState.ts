import { groupOf } from "./groupOf.ts"

/**
 * `deliveryState(stream, group, position)`: whether a group still has to settle an entry of a stream: "unread", "pending", or nothing. Then
 * the entry is gone or acknowledged, or the stream has no such group.
 */
export const deliveryState = `${groupOf}
local function deliveryState(stream, group, position)
  if redis.call('TYPE', stream).ok ~= 'stream' or #redis.call('XRANGE', stream, position, position) == 0 then return nil end
  local info = groupOf(stream, group)
  if not info then return nil end
  if #redis.call('XPENDING', stream, group, position, position, 1) > 0 then return 'pending' end
  return #redis.call('XRANGE', stream, '(' .. info[8], position, 'COUNT', 1) > 0 and 'unread' or nil
end
`
