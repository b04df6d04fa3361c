/** `sizeOf(entry)`: the bytes of a stream entry; 0 where there is none. A script counts them to end before it holds up the server. */
export const sizeOf = `
local function sizeOf(entry)
  local bytes = 0
  for _, field in ipairs(entry and entry[2] or {}) do bytes = bytes + #field end
  return bytes
end
`
