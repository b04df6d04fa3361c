/**
 * All that is used of ioredis, and the only module that imports it. What is pinned in `package.json` beyond its public types is looked for by
 * a test of its own.
 */
export { Cluster, Command as ClientCommand, Redis as Client } from "ioredis"
export type { ClusterNode, RedisOptions as IoredisOptions } from "ioredis"
