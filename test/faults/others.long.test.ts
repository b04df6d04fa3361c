/** The fault runs that are not among the representative ones. */
import { Effect } from "effect"
import { playOnce } from "./once.ts"
import { runs } from "./process.ts"
import { representative } from "./representative.ts"

const all = await Effect.runPromise(runs)

playOnce(all.filter(([name]) => !representative.has(name)))
