/**
 * `fieldsOf(id, body, late)`: the fields of the log entry of a message that waited for its first delivery, from its id and body (see
 * `redisBroker/entry.ts`), `late` ms after it was due; nothing when it is no body.
 */
export const fieldsOf = `
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
