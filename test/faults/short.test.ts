/** One fault run of each kind: the server, its memory, its data, the network, a failover, handlers. The others are in `others.long.test.ts`. */
import { Effect } from "effect"
import { playOnce } from "./once.ts"
import { runs } from "./process.ts"
import { representative } from "./representative.ts"

const all = await Effect.runPromise(runs)

playOnce(all.filter(([name]) => representative.has(name)))
