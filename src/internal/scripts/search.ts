import type { Script } from "../../Redis.ts"
import { looking } from "./parts/looking.ts"

/**
 * Looks for messages in a log, behind a position; one bounded step (see `looking`).
 *
 * KEYS: log. ARGV: position, ids. Reply: {position it came to, 1 when all that was stored behind the first position is still there (else 0),
 * 1 at the end of the log (else 0), then for each message found: id, position}.
 */
export const search: Script = {
  name: "search",
  lua: `
local log = KEYS[1]
local from, ids = ARGV[1], ARGV
${looking}
local wanted = {}
for i = 2, #ids do wanted[ids[i]] = true end
local found, at, isWhole, isEnd = look(log, from, wanted)
local reply = {at, isWhole and 1 or 0, isEnd and 1 or 0}
for id, position in pairs(found) do
  reply[#reply + 1] = id
  reply[#reply + 1] = position
end
return reply
`
}
