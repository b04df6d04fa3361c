import { idempotentScript } from "../../script.ts"

/**
 * Lists the commands that the user is not permitted, without running them.
 *
 * KEYS: meta.
 * ARGV: commands, those with a subcommand with a bar between them.
 * Reply: the commands that are not permitted on a key of this shard. A server that cannot tell permits all of them here.
 */
export const missingPermissions = idempotentScript("missingPermissions")`
local meta = KEYS[1]
local commands, total = ARGV, #ARGV
local refused = {}
for i = 1, redis.acl_check_cmd and total or 0 do
  local words = {}
  for word in string.gmatch(commands[i], '[^|]+') do words[#words + 1] = word end
  for _ = 1, 6 do words[#words + 1] = meta end
  local isKnown, isAllowed = pcall(redis.acl_check_cmd, unpack(words))
  if isKnown and not isAllowed then refused[#refused + 1] = commands[i] end
end
return refused
`
