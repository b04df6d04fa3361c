import { Rotif } from "rotif"
import { runSuites } from "./all.ts"
import { memoryBackend } from "./kit.ts"

runSuites(memoryBackend(Rotif.layerMemoryWith))
