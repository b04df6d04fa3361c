import { Rotif } from "rotif"
import { inject } from "vitest"
import { broadcastSuite } from "./suite/broadcast.ts"
import { brokerSuite } from "./suite/broker.ts"
import { freshPrefix, liveBackend, runSuites } from "./suite/kit.ts"
import { leasesSuite } from "./suite/leases.ts"
import { lifecycleSuite } from "./suite/lifecycle.ts"
import { publisherSuite } from "./suite/publisher.ts"
import { settlementSuite } from "./suite/settlement.ts"
import { sourcesSuite } from "./suite/sources.ts"

const cluster = inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port }))

runSuites(
  liveBackend("Cluster", (options) => Rotif.layer({ cluster, prefix: freshPrefix(), shards: 8, ...options })),
  [brokerSuite, publisherSuite, sourcesSuite, settlementSuite, lifecycleSuite, leasesSuite, broadcastSuite]
)
