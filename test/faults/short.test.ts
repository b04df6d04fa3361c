/** One fault run of each kind: of the server, the network, a failover, memory, data, handlers. The others are in `others.long.test.ts`. */
import { Effect } from "effect"
import { playOnce } from "./once.ts"
import { runs } from "./process.ts"
import { representative } from "./representative.ts"

const all = await Effect.runPromise(runs)

playOnce(all.filter(([name]) => representative.has(name)))
