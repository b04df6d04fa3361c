/**
 * The log entry of a message that waited for its first delivery: its body goes into it as a whole (see `redisBroker/entry.ts`).
 *
 * `isBody(body)`. `fieldsOf(id, body, late)`: the fields, each as a result of its own, from the id, the body, and the ms by which it comes
 * late.
 */
export const bodyFields = `
local function isBody(body) return string.byte(body) == 10 or string.find(body, '\\n\\n', 1, true) end
local function fieldsOf(id, body, late)
  if string.byte(body) == 10 then return 'i', id, 'b', body end
  return 'i', id, 'l', string.format('%.0f', late), 'b', body
end
`
