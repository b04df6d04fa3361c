/**
 * Lua functions for the scripts that settle: they change the totals of a group on a channel in the hash `counts`, of which the
 * script has the key as local `counts`. `account` is group and channel, with a line feed between them.
 */
export const counting = `
local function count(kind, account, by)
  if by ~= 0 then redis.call('HINCRBY', counts, kind .. '\\n' .. account, by) end
end
`

/** Counts a dead letter off, by the fields of its entry; one that is removed, not requeued, is counted as such. */
export const countingOff = `
local function countOff(fields, isRemoved)
  for j = 1, #fields, 2 do
    if fields[j] == 'k' then
      local field = 'd\\n' .. fields[j + 1]
      if redis.call('HINCRBY', counts, field, -1) <= 0 then redis.call('HDEL', counts, field) end
      local account = isRemoved and string.match(fields[j + 1], '^(.*)\\n')
      if account then redis.call('HINCRBY', counts, 'x\\n' .. account, 1) end
    end
  end
end
`
