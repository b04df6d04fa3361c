/**
 * Connection options, from the option `redis` of the Promise API.
 */
import * as Redis from "../Redis.ts"
import { splitRedis } from "./checks.ts"
import type { RotifConfig } from "./options.ts"
import { defaults } from "./options.ts"

/**
 * The options of Rotif's own connections, and a client of ioredis for the user, which opens none before it is used; neither for `"memory"`.
 * Options that only ioredis has reach the connections through that client.
 */
export const redisOf = ({ redis = defaults.url }: RotifConfig): {
  readonly options: Redis.Options | undefined
  readonly client: Redis.IoredisClient | undefined
} => {
  if (redis === "memory") return { options: undefined, client: undefined }
  if (typeof redis === "string") return { options: { url: redis }, client: Redis.clientUnsafe({ url: redis }) }
  const { own, theirs } = splitRedis(redis)
  // The options are checked: the place is one of those that the type has.
  const options = own as unknown as Redis.Options
  const client = Redis.clientUnsafe(options, theirs)
  if (Object.keys(theirs).length === 0) return { options, client }
  const { commandTimeout, connectTimeout, connectionName, insecure, maxWaiting, startTimeout } = options
  return {
    options: { client, commandTimeout, connectTimeout, connectionName, insecure, maxWaiting, startTimeout },
    client
  }
}
