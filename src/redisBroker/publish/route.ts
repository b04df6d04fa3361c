/** The route of a publish: the connections it writes on, and the observer of messages that were there before. */
import type { NewMessage } from "../../broker/publishing.ts"
import type { Connection } from "../../redis/connection.ts"

export interface Route {
  readonly connectionOf: (shard: number) => Connection
  /** Runs when the message was found, and nothing was written. */
  readonly onFound?: ((message: NewMessage) => void) | undefined
}
