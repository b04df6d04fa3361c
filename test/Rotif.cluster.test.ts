import { inject } from "vitest"
import { layerOn } from "./fixtures/leastPrivilege.ts"
import { runSuites } from "./suite/all.ts"
import { liveBackend } from "./suite/kit.ts"

runSuites(liveBackend("Cluster", layerOn(inject("clusterPorts"), { cluster: true, shards: 8 })))
