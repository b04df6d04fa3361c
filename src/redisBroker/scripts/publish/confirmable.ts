import type { Script } from "../../../Redis.ts"

/**
 * Writes something of no meaning where messages are that were found, not written: replicas that have it have these messages, too, and
 * Redis waits for writes only.
 *
 * KEYS: meta, then what holds the messages (their logs, waiting, their bodies), so that it is executed where these are.
 * ARGV: none. Reply: 1.
 */
export const confirmable: Script = {
  name: "confirmable",
  lua: `
local meta = KEYS[1]
redis.call('HSET', meta, 'touched', '1')
return 1
`
}
