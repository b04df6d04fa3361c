import { inject } from "vitest"
import { layerOn } from "../fixtures/leastPrivilege.ts"
import { runSuites } from "./all.ts"
import { liveBackend } from "./kit.ts"

runSuites(liveBackend("Cluster", layerOn(inject("clusterPorts"), { cluster: true, shards: 8 })))
