/** `isText(bytes)`: whether they are UTF-8. Other bytes reach a client as other characters, so it could never name them again. */
export const isText = `
local function isText(text)
  local i = 1
  while i <= #text do
    local byte = string.byte(text, i)
    local more, low, high = 0, 0x80, 0xbf
    if byte >= 0xc2 and byte <= 0xdf then more = 1
    elseif byte >= 0xe0 and byte <= 0xef then
      more = 2
      if byte == 0xe0 then low = 0xa0 elseif byte == 0xed then high = 0x9f end
    elseif byte >= 0xf0 and byte <= 0xf4 then
      more = 3
      if byte == 0xf0 then low = 0x90 elseif byte == 0xf4 then high = 0x8f end
    elseif byte >= 0x80 then return false end
    for k = 1, more do
      local next = string.byte(text, i + k)
      if not next or next < low or next > high then return false end
      low, high = 0x80, 0xbf
    end
    i = i + more + 1
  end
  return true
end
`
