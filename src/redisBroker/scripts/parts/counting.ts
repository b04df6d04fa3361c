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
 * `countOffKey(key)`: counts a dead letter off, by group, channel and reason with line feeds between them.
 */
export const countOffKey = `
local function countOffKey(key)
  local field = '${letterCounter}\\n' .. key
  local left = redis.pcall('HINCRBY', counts, field, -1)
  if type(left) == 'table' or left <= 0 then redis.call('HDEL', counts, field) end
end
`

/** The first and the last, and `countOff(fields)`: counts a dead letter off that is removed, by the fields of its entry. */
export const countOff = `${count}${countOffKey}
local function countOff(fields)
  for j = 1, #fields, 2 do
    if fields[j] == 'k' then
      countOffKey(fields[j + 1])
      local account = string.match(fields[j + 1], '^(.*)\\n')
      if account then count('${counters.removed}', account, 1) end
    end
  end
end
`
