/**
 * A Lua function for the scripts that put a waiting message into a log: the fields of the entry, of an id and a body (see
 * `internal/entry.ts`), `late` ms after the message was due. Nothing when it is no body.
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
    fields[#fields + 1] = name
    fields[#fields + 1] = value
    from = stop + 1
  end
  fields[#fields + 1] = 'p'
  fields[#fields + 1] = string.sub(body, from + 1)
  return fields
end
`
