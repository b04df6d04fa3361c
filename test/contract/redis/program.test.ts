import { runSuites } from "../all.ts"
import { redis } from "../servers.ts"

runSuites(redis, "program")
