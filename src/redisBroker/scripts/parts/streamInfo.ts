/**
 * `map(flat)`: a table of names and values, from a list of them in turn. `infoOf(stream)`: what Redis tells of a stream, by name.
 *
 * XINFO STREAM gives the first and the last entry as well, and to bring 1 MiB into Lua takes about a millisecond. With FULL it gives one of
 * them (`entries`), besides the groups with their consumers (`groups`).
 */
export const streamInfo = `
local function map(flat)
  local out = {}
  for i = 1, #flat, 2 do out[flat[i]] = flat[i + 1] end
  return out
end
local function infoOf(stream) return map(redis.call('XINFO', 'STREAM', stream, 'FULL', 'COUNT', 1)) end
`
