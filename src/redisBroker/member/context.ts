/** The membership and the tools that all rooms of a member share. */
import type { BrokerError, Membership } from "../../Broker.ts"
import type { Connection, RedisError } from "../../Redis.ts"
import type { Keys } from "../keys.ts"

export interface MemberContext {
  readonly membership: Membership
  /** The keys of the member's shard. */
  readonly keys: Keys
  readonly connection: Connection
  /** Milliseconds of a clock that is never set back. A wall clock could make a lease last longer than it does. */
  readonly monotonic: () => number
  /** Translates an error of Redis into one of the port, for the named operation. */
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}
