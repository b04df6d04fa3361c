import { inject } from "vitest"
import { layerOn } from "../fixtures/leastPrivilege.ts"
import { runSuites } from "./all.ts"
import { liveBackend } from "./kit.ts"

runSuites(liveBackend("Redis", layerOn([inject("redisPort")], { cluster: false, shards: 1 })))
