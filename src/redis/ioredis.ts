/**
 * Everything that Rotif uses of ioredis. No other module imports it. A test of its own checks what is used beyond its public types, for which
 * `package.json` pins the version.
 */
export { Cluster, Command as ClientCommand, Redis as Client } from "ioredis"
export type { ClusterNode, RedisOptions as IoredisOptions } from "ioredis"
