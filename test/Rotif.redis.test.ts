import { Rotif } from "rotif"
import { inject } from "vitest"
import { runSuites } from "./suite/all.ts"
import { freshPrefix, liveBackend } from "./suite/kit.ts"

const url = `redis://127.0.0.1:${inject("redisPort")}`

runSuites(
  liveBackend("Redis", (options) => Rotif.layer({ url, prefix: freshPrefix(), ...options }))
)
