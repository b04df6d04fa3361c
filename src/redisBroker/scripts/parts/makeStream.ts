/**
 * `makeStream(stream, group)`: makes a stream, with a group or without one. A position is a time in ms and a counter, and stands for one
 * message: leases, floors and dead letters refer to it. A stream that is deleted and made again in the same ms would count from 0 a second
 * time; so a new one goes on from a last position that tells the microsecond in which it was made.
 */
export const makeStream = `
local function makeStream(stream, group)
  redis.call('XGROUP', 'CREATE', stream, group or 'rotif', '0', 'MKSTREAM')
  if not group then redis.call('XGROUP', 'DESTROY', stream, 'rotif') end
  local time = redis.call('TIME')
  local micros = tonumber(time[2])
  local last = string.format('%s%03d-%d000000', time[1], math.floor(micros / 1000), micros % 1000 + 1)
  redis.call('XSETID', stream, last)
end
`

/** `add(call, stream, …)`: appends to a stream by `call` (`redis.call` or `redis.pcall`), and makes it where it is missing. */
export const add = `
local function add(call, stream, ...)
  local position = call('XADD', stream, 'NOMKSTREAM', '*', ...)
  if position then return position end
  makeStream(stream)
  return call('XADD', stream, '*', ...)
end
`
