/** Promotion: messages whose time has come go from the waiting ones into their streams. */
import { Effect } from "effect"
import { waitingParts } from "../keys.ts"
import { promote } from "../scripts/publish/promote.ts"
import type { Shards } from "../shards.ts"

/** A message that cannot be moved, because of wrong data under a key, is put off for this long. */
const putOffMillis = 60_000

/**
 * A promotion of retries alone looks again after this long where due scheduled messages stay, and one millisecond later for each
 * `passedPerMilli` messages that it passes over: behind them, a new retry may cause no event.
 */
const lookMillis = 250
const passedPerMilli = 100

/** At most this many targets are named in advance to the script. */
const rememberedTargets = 64

export const make = ({ all, connectionOf, fail, keysOf }: Shards) => {
  const targets = all.map(() => new Map<string, readonly [bodies: string, stream: string, retries: string]>())

  return Effect.fnUntraced(function*(shard: number, limit: number, only?: "retries") {
    const keys = keysOf(shard)
    const known = targets[shard]!
    let passed = 0
    let total = 0
    while (true) {
      const [moved, broken, aside, unknown, wait, more = 0] = (yield* connectionOf(shard).evaluate(
        promote,
        [keys.waiting, ...[...known.values()].flat()],
        [limit, putOffMillis, only === undefined ? "" : passed, ...known.keys()]
      )) as readonly [number, number, number, ReadonlyArray<string>, number, number?]
      total += moved
      if (broken > 0) {
        yield* Effect.logError(
          `rotif: ${broken} waiting messages in ${keys.waiting} had no readable body and were removed`
        )
      }
      if (aside > 0) {
        yield* Effect.logError(
          `rotif: ${aside} waiting messages in ${keys.waiting} are put off by ${putOffMillis} ms: their stream or their bodies are ` +
            `not what they should be (WRONGTYPE), or the stream has no position left; remove the wrong key`
        )
      }
      if (known.size + unknown.length > rememberedTargets) known.clear()
      for (const prefix of unknown) {
        const [group, channel] = waitingParts(prefix)!
        known.set(
          prefix,
          group === ""
            ? [keys.bodies(group, channel), keys.log(channel), keys.log(channel)]
            : [keys.bodies(group, channel), keys.retry(group, channel), keys.retries(group)]
        )
      }
      const done = moved + broken + aside
      if (done === 0 && unknown.length > 0) continue
      passed += more
      // Messages behind those that stay are visited too: the ones that stay are due for longer, and may be many.
      if (only !== undefined && wait === 0 && more > 0) continue
      const next = wait < 0 ? undefined : wait
      return {
        moved: total,
        nextInMillis: passed === 0 ? next : Math.min(next ?? Infinity, lookMillis + passed / passedPerMilli)
      }
    }
  }, Effect.mapError(fail("promote")))
}
