import { idempotentScript } from "../../script.ts"
import { rankAfter } from "../parts/rankAfter.ts"

/**
 * Lists members of `waiting` that begin with a prefix, in pages.
 *
 * KEYS: waiting.
 * ARGV: prefix, score and member to go on after ("" and "": from the beginning), at most how many to list, at most how many to read.
 * Reply: {scores and members of the page, score and member to go on after (left out at the end)}.
 */
export const listScheduled = idempotentScript("listScheduled")`
local waiting = KEYS[1]
local prefix, score, member, limit, longest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
${rankAfter}
local rank = score == '' and 0 or rankAfter(waiting, score, member)
local page = redis.call('ZRANGE', waiting, rank, rank + longest - 1, 'WITHSCORES')
local found = {}
for i = 1, #page, 2 do
  if string.sub(page[i], 1, #prefix) == prefix then
    found[#found + 1] = page[i + 1]
    found[#found + 1] = page[i]
    if #found == 2 * limit then return {found, page[i + 1], page[i]} end
  end
end
if #page < 2 * longest then return {found} end
return {found, page[#page], page[#page - 1]}
`
