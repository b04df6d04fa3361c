/**
 * `newVersion()`: raises the version of the registry, in the hash `meta` of which the script has the key as local `meta`. A version of an
 * earlier life of the namespace must not come again: after a flush, and where another program has written no number, it begins with the
 * time.
 */
export const newVersion = `
local function newVersion()
  local function begin()
    local time = redis.call('TIME')
    redis.call('HSET', meta, 'v', time[1] .. string.sub('00000' .. time[2], -6))
  end
  if redis.call('HEXISTS', meta, 'v') == 0 then begin() end
  if type(redis.pcall('HINCRBY', meta, 'v', 1)) == 'table' then begin() end
end
`
