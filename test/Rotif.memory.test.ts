import { Rotif } from "rotif"
import { broadcastSuite } from "./suite/broadcast.ts"
import { brokerSuite } from "./suite/broker.ts"
import { memoryBackend, runSuites } from "./suite/kit.ts"
import { leasesSuite } from "./suite/leases.ts"
import { lifecycleSuite } from "./suite/lifecycle.ts"
import { publisherSuite } from "./suite/publisher.ts"
import { settlementSuite } from "./suite/settlement.ts"
import { sourcesSuite } from "./suite/sources.ts"

runSuites(memoryBackend(Rotif.layerMemoryWith), [
  brokerSuite,
  publisherSuite,
  sourcesSuite,
  settlementSuite,
  lifecycleSuite,
  leasesSuite,
  broadcastSuite
])
