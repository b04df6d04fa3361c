import { Rotif } from "rotif"
import { inject } from "vitest"
import { runSuites } from "./suite/all.ts"
import { freshPrefix, liveBackend } from "./suite/kit.ts"

const cluster = inject("clusterPorts").map((port) => ({ host: "127.0.0.1", port }))

runSuites(
  liveBackend("Cluster", (options) => Rotif.layer({ cluster, prefix: freshPrefix(), shards: 8, ...options }))
)
