/** Takeovers: how a member comes by deliveries that no read has brought it. */
import { Effect, Semaphore } from "effect"
import type { RedisError } from "../../Redis.ts"
import type { Lease } from "./lease.ts"
import { forget } from "./lease.ts"

/**
 * Makes the way in which all takeovers of a member go. One runs at a time: a delivery that was given to one and is not recorded yet must not
 * look lost to another. When a step fails, the deliveries of the steps before it are not reported. They are forgotten, so that the member finds
 * them again as lost.
 */
export const make = () => {
  const taking = Semaphore.makeUnsafe(1)
  return <A>(take: (taken: Array<Lease>) => Effect.Effect<A, RedisError>): Effect.Effect<A, RedisError> =>
    taking.withPermit(Effect.suspend(() => {
      const taken: Array<Lease> = []
      return Effect.onError(take(taken), () => Effect.sync(() => forget(taken)))
    }))
}

export type Takeover = ReturnType<typeof make>
