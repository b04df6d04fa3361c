/**
 * The shards of a namespace: the keys and the connection of each.
 *
 * A shard is one slot of a Cluster. All keys of a channel are in the shard that the channel's name decides.
 */
import type { BrokerError } from "../broker/error.ts"
import type { Redis } from "../Redis.ts"
import type { Connection } from "../redis/connection.ts"
import type { RedisError } from "../redis/protocol.ts"
import { brokerError } from "./brokerError.ts"
import * as Keys from "./keys.ts"

export interface Shards {
  /** The keys of each shard, in order. */
  readonly all: ReadonlyArray<Keys.Keys>
  readonly keysOf: (shard: number) => Keys.Keys
  readonly shardOf: (channel: string) => number
  readonly connectionOf: (shard: number) => Connection
  /** Translates an error of Redis into one of the port, for the named operation. */
  readonly fail: (operation: string) => (error: RedisError) => BrokerError
}

export const make = (prefix: string, count: number, redis: Redis["Service"]): Shards => {
  const all = Array.from({ length: count }, (_, shard) => Keys.make(prefix, shard, redis.database))
  const connections = all.map((keys) => redis.connection(keys.meta))
  return {
    all,
    keysOf: (shard) => all[shard]!,
    shardOf: (channel) => count === 1 ? 0 : Keys.shardOf(channel, count),
    connectionOf: (shard) => connections[shard]!,
    fail: brokerError
  }
}
