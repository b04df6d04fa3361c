/**
 * Lua functions for the scripts that make streams. A position is a time in ms and a counter, and stands for one message: leases, floors
 * and letters go by it. A stream that somebody deletes and that is made again in the same ms would count from 0 a second time; so it
 * goes on from a last position that tells the microsecond in which it was made.
 */
export const makingStreams = `
local function makeStream(stream, group)
  redis.call('XGROUP', 'CREATE', stream, group or 'rotif', '0', 'MKSTREAM')
  if not group then redis.call('XGROUP', 'DESTROY', stream, 'rotif') end
  local time = redis.call('TIME')
  local micros = tonumber(time[2])
  local last = string.format('%s%03d-%d000000', time[1], math.floor(micros / 1000), micros % 1000 + 1)
  redis.call('XSETID', stream, last)
end
`

/** The same, and one that appends to a stream by `call` (`redis.call` or `redis.pcall`), and makes it where it is missing. */
export const addingTo = `${makingStreams}
local function add(call, stream, ...)
  local position = call('XADD', stream, 'NOMKSTREAM', '*', ...)
  if position then return position end
  makeStream(stream)
  return call('XADD', stream, '*', ...)
end
`
