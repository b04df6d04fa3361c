/**
 * Checks before the first write. A script has no rollback, so whatever would refuse a later write is found before. Each check returns
 * an error reply, or nothing, and the type it has found.
 */

/** `wrongType(key, expected)`: whether the key holds something else. */
export const wrongType = `
local function wrongType(key, expected)
  local found = redis.call('TYPE', key).ok
  if found == 'none' or found == expected then return nil, found end
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', expected a ' .. expected)
end
`

/**
 * The same, and `noRoom(stream, wanted, bytes)`: whether the stream takes no more entries. A stream that another program has brought to
 * the last possible position takes none. A position ends with a number below 2^64; of the last ten million numbers these checks count the
 * last seven digits. `roomIn(stream, bytes)`: how many entries it takes.
 *
 * XINFO gives the first and the last entry as well, and to bring 1 MiB into Lua takes a millisecond. Where `bytes` says that messages are
 * large, XINFO is called only when there is an entry near the end of all positions.
 */
export const noRoom = `${wrongType}
local function roomInExisting(stream, bytes)
  if bytes > 65536 and redis.call('XLEN', stream) > 0
    and #redis.call('XRANGE', stream, '18446744073709551615-0', '+', 'COUNT', 1) == 0 then return math.huge end
  local last = redis.call('XINFO', 'STREAM', stream)[8]
  if string.sub(last, 1, 34) ~= '18446744073709551615-1844674407370' or #last ~= 41 then return math.huge end
  return 9551615 - tonumber(string.sub(last, 35))
end
local function roomIn(stream, bytes)
  return redis.call('EXISTS', stream) == 0 and math.huge or roomInExisting(stream, bytes)
end
local function noRoom(stream, wanted, bytes)
  local problem, found = wrongType(stream, 'stream')
  if problem or found == 'none' or roomInExisting(stream, bytes) >= wanted then return problem, found end
  return redis.error_reply('ERR ' .. stream .. ' has no position left')
end
`
