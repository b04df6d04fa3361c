/** Ordering keys under kills, freezes, cuts, restarts of Redis and flushes of its scripts. */
import { Effect, Random } from "effect"
import * as Ordering from "../ordering.ts"
import type { Run } from "../Run.ts"

export default {
  number: 24,
  title: "Ordering keys: SIGKILL, SIGSTOP longer than the lease, cuts, SIGKILL of Redis, SCRIPT FLUSH",
  body: Effect.fnUntraced(function*(setting) {
    const rounds = setting.isShort ? 1 : 5
    const faults: Array<(typeof Ordering.kinds)[number]> = []
    for (let i = 0; i < rounds; i++) {
      faults.push(...(yield* Random.shuffle([...Ordering.kinds, "kill", "cut"] as const)))
    }
    return yield* Ordering.run(
      setting.isShort
        ? { keys: 300, batches: 80, batch: 50, handlerMillis: 10, faults }
        : { keys: 10_000, batches: 400, batch: 100, handlerMillis: 5, faults }
    )
  })
} satisfies Run
