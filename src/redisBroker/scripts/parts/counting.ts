/**
 * Changes of the hash `counts` (see `redisBroker/counters.ts`), of which the script has the key as local `counts`. A number that another
 * program has made unreadable begins anew: no settlement that has begun may end at it.
 */
import { counters, letterCounter } from "../../counters.ts"

/** Strings as a Lua table. */
export const listOf = (strings: ReadonlyArray<string>): string => `{${strings.map((text) => `'${text}'`).join(", ")}}`

/** `count(letter, account, by)`: raises a total; `account` is group and channel with a line feed between them (and reason, for `d`). */
export const count = `
local function count(letter, account, by)
  if by == 0 then return end
  local field = letter .. '\\n' .. account
  if type(redis.pcall('HINCRBY', counts, field, by)) == 'table' then redis.call('HSET', counts, field, by) end
end
`

/**
 * The same, and `countOff(fields, isRemoved)`: counts a dead letter off, by the fields of its entry. One that is removed, and not
 * requeued, goes into the total of those.
 */
export const countOff = `${count}
local function countOff(fields, isRemoved)
  for j = 1, #fields, 2 do
    if fields[j] == 'k' then
      local field = '${letterCounter}\\n' .. fields[j + 1]
      local left = redis.pcall('HINCRBY', counts, field, -1)
      if type(left) == 'table' or left <= 0 then redis.call('HDEL', counts, field) end
      local account = isRemoved and string.match(fields[j + 1], '^(.*)\\n')
      if account then count('${counters.removed}', account, 1) end
    end
  end
end
`
