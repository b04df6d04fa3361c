import { idempotentScript } from "../../script.ts"

/**
 * Whether trials are recorded of deliveries that no consumer holds. Repair forgets them.
 *
 * KEYS: trials of the group and channel, log, retry stream.
 * ARGV: `check` or `repair`, group.
 * Reply: 1 when it is so, else 0.
 *
 * The script reads a bounded page of a large hash; when its trials are forgotten, the next call reads others.
 */
export const orphanTrials = idempotentScript("orphanTrials")`
local trials, log, retry = KEYS[1], KEYS[2], KEYS[3]
local step, group = ARGV[1], ARGV[2]
if redis.call('TYPE', trials).ok ~= 'hash' then return 0 end
local page = redis.call('HSCAN', trials, 0, 'COUNT', 500)[2]
local stray = {}
for i = 1, #page, 2 do
  local kind, position = string.match(page[i], '^([lr])(%d+%-%d+)$')
  local pending = kind and redis.pcall('XPENDING', kind == 'l' and log or retry, group, position, position, 1)
  if not pending or pending.err or #pending == 0 then stray[#stray + 1] = page[i] end
end
if #stray == 0 then return 0 end
if step == 'repair' then
  for i = 1, #stray do redis.call('HDEL', trials, stray[i]) end
end
return 1
`
