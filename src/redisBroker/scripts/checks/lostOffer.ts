import { idempotentScript } from "../../script.ts"
import { signalEvents } from "../../eventNames.ts"

/**
 * Whether a dead letter counts as offered to a subscription, but has no time at which it is offered again. Repair offers it at once, or forgets
 * it where the letter is gone.
 *
 * KEYS: dead, offers, offered.
 * ARGV: `check` or `repair`, id of the letter, events channel.
 * Reply: 1 when it is so, else 0.
 */
export const lostOffer = idempotentScript("lostOffer")`
local dead, offers, offered = KEYS[1], KEYS[2], KEYS[3]
local step, letter, events = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', offered, letter) == 0 or redis.call('ZSCORE', offers, letter) then return 0 end
if step == 'repair' then
  if string.find(letter, '^%d+%-%d+$') and #redis.call('XRANGE', dead, letter, letter) > 0 then
    redis.call('ZADD', offers, 0, letter)
    redis.call('PUBLISH', events, '${signalEvents.letter}')
  else
    redis.call('HDEL', offered, letter)
  end
end
return 1
`
