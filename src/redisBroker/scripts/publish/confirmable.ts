import { idempotentScript } from "../../script.ts"

/**
 * Writes a field of no meaning in a shard whose messages were found, not written: Redis waits for writes only, and replicas that have this
 * write have these messages, too.
 *
 * KEYS: meta, then the keys that hold the messages (their logs, waiting, their bodies), so that the script is executed where these are.
 * ARGV: none.
 * Reply: 1.
 */
export const confirmable = idempotentScript("confirmable")`
local meta = KEYS[1]
redis.call('HSET', meta, 'touched', '1')
return 1
`
