import { runSuites } from "../all.ts"
import { cluster } from "../servers.ts"

runSuites(cluster, "operations")
