/** `groupOf(stream, group)`: what XINFO GROUPS tells of a group of a stream that exists; nothing if the stream has no such group. */
export const groupOf = `
local function groupOf(stream, group)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then return info end
  end
end
`
