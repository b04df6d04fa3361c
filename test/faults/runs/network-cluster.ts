/** A proxy between the program and each node of a Cluster, for every way a network fails. */
import { Effect } from "effect"
import * as RedisCluster from "../../fixtures/RedisCluster.ts"
import * as TcpProxy from "../../fixtures/TcpProxy.ts"
import * as Network from "../network.ts"
import type { Run } from "../Run.ts"

export default {
  number: 5,
  title: "Network of a Cluster: cuts, lost answers, half-open, 1 % dropped, slow",
  recoveryWithin: Network.recoveryWithin,
  body: Network.body(Effect.gen(function*() {
    const cluster = yield* RedisCluster.make()
    const { natMap, proxies } = yield* TcpProxy.makeCluster(cluster)
    return {
      proxies,
      through: { cluster: [{ host: "127.0.0.1", port: proxies[0]!.port }], natMap, shards: 8 },
      direct: { cluster: cluster.nodes.map(({ host, port }) => ({ host, port })), shards: 8 }
    }
  }))
} satisfies Run
