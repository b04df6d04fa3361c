/**
 * Lua functions for the scripts that deal with waiting messages. `fieldsOf`: the fields of the entry, of an id and a body (see
 * `redisBroker/entry.ts`), `late` ms after the message was due; nothing when it is no body. `windowOf`: the span of its deduplication window in
 * ms, the name of the call that opened it, and its key; nothing when it has none. `ownsWindow`: whether the window key still holds what
 * that call wrote.
 */
export const fieldsOfBody = `
local function fieldsOf(id, body, late)
  local fields, from = {'i', id}, 1
  while true do
    local stop = string.find(body, '\\n', from, true)
    if not stop then return nil end
    if stop == from then break end
    local name, value = string.sub(body, from, from), string.sub(body, from + 1, stop - 1)
    if name == 'x' then value = string.format('%.0f', (tonumber(value) or 0) - late) end
    if name ~= 'w' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
    from = stop + 1
  end
  fields[#fields + 1] = 'p'
  fields[#fields + 1] = string.sub(body, from + 1)
  return fields
end
`

export const windowsOfBodies = `
local function windowOf(body)
  if string.byte(body) ~= 119 then return nil end
  return string.match(string.sub(body, 1, (string.find(body, '\\n', 1, true) or 1) - 1), '^w(%d+) (%S+) (.*)$')
end
local function ownsWindow(key, call)
  local held = redis.call('GET', key)
  return held and string.sub(held, 1, #call + 3) == '@ ' .. call .. ' '
end
`
