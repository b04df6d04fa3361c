/**
 * `deliveryState(stream, group, position)`: whether a group still has to settle an entry of a stream: "unread", "pending", or nothing. Then
 * the entry is gone or acknowledged, or the stream has no such group.
 */
export const deliveryState = `
local function deliveryState(stream, group, position)
  if redis.call('TYPE', stream).ok ~= 'stream' or #redis.call('XRANGE', stream, position, position) == 0 then return nil end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then
      if #redis.call('XPENDING', stream, group, position, position, 1) > 0 then return 'pending' end
      local unread = redis.call('XRANGE', stream, '(' .. info[8], position, 'COUNT', 1)
      return #unread > 0 and 'unread' or nil
    end
  end
  return nil
end
`
