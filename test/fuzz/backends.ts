/** The backends that have to agree. */
import { Rotif } from "rotif"
import { freshPrefix } from "../contract/kit.ts"
import type { Backend } from "./compare.ts"
import { options } from "./play.ts"

export const backendsOn = (port: number, clusterPorts: ReadonlyArray<number>): ReadonlyArray<Backend> => {
  const host = "127.0.0.1"
  return [
    { name: "memory", layer: () => Rotif.layerMemoryWith({ ...options, drainTimeout: "5 seconds" }) },
    { name: "Redis", layer: (shards) => Rotif.layer({ ...options, host, port, prefix: freshPrefix(), shards }) },
    {
      name: "Cluster",
      layer: (shards) =>
        Rotif.layer({
          ...options,
          cluster: clusterPorts.map((port) => ({ host, port })),
          prefix: freshPrefix(),
          shards
        })
    }
  ]
}
