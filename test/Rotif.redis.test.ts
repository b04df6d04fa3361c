import { inject } from "vitest"
import { layerOn } from "./fixtures/leastPrivilege.ts"
import { runSuites } from "./suite/all.ts"
import { liveBackend } from "./suite/kit.ts"

runSuites(liveBackend("Redis", layerOn([inject("redisPort")], { cluster: false, shards: 1 })))
