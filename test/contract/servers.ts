/** The backends on the servers that all test files share. */
import { inject } from "vitest"
import { layerOn } from "../fixtures/leastPrivilege.ts"
import { liveBackend } from "./kit.ts"

export const redis = liveBackend("Redis", layerOn([inject("redisPort")], { cluster: false, shards: 1 }))
export const cluster = liveBackend("Cluster", layerOn(inject("clusterPorts"), { cluster: true, shards: 8 }))
