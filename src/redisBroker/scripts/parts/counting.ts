/**
 * Lua functions for the scripts that settle: they change the totals of a group on a channel in the hash `counts`, of which the
 * script has the key as local `counts`. `account` is group and channel, with a line feed between them. What another program has
 * written there that is no number begins anew: nothing that has begun may end at it.
 */
export const counting = `
local function count(kind, account, by)
  if by == 0 then return end
  local field = kind .. '\\n' .. account
  if type(redis.pcall('HINCRBY', counts, field, by)) == 'table' then redis.call('HSET', counts, field, by) end
end
`

/** Counts a dead letter off, by the fields of its entry; one that is removed, not requeued, is counted as such. */
export const countingOff = `
local function countOff(fields, isRemoved)
  for j = 1, #fields, 2 do
    if fields[j] == 'k' then
      local field = 'd\\n' .. fields[j + 1]
      local left = redis.pcall('HINCRBY', counts, field, -1)
      if type(left) == 'table' or left <= 0 then redis.call('HDEL', counts, field) end
      local account = isRemoved and string.match(fields[j + 1], '^(.*)\\n')
      local removed = account and 'x\\n' .. account
      if removed and type(redis.pcall('HINCRBY', counts, removed, 1)) == 'table' then redis.call('HSET', counts, removed, 1) end
    end
  end
end
`
