import { Rotif } from "rotif"
import { runSuites } from "./suite/all.ts"
import { memoryBackend } from "./suite/kit.ts"

runSuites(memoryBackend(Rotif.layerMemoryWith))
