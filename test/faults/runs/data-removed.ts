/**
 * Somebody removes data while the library is at work: everything, the scripts, a group, a log, or any other key of `docs/redis-keys.md`. It
 * heals; what is published afterwards is handled by every group, and where nothing but an account was removed nothing is lost.
 */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import { exactNow } from "../clock.ts"
import * as Mix from "../Mix.ts"
import { Recorder } from "../Recorder.ts"
import { type Run, until } from "../Run.ts"

const key = (name: string) => `{removed:0}:${name}`

interface Fault {
  readonly command: readonly [string, ...ReadonlyArray<string>]
  /** It takes messages along. */
  readonly isLossy: boolean
}

const del = (isLossy: boolean) => (name: string): Fault => ({ command: ["del", key(name)], isLossy })

const faults: ReadonlyArray<Fault> = [
  { command: ["flushall"], isLossy: true },
  { command: ["script", "flush"], isLossy: false },
  ...Mix.groups.map((group): Fault => ({ command: ["xgroup", "destroy", key("log:work"), group], isLossy: false })),
  ...["log:work", "waiting", "bodies::work", "bodies:a:work", "retry:a:work", "retry:once:work"].map(del(true)),
  ...["meta", "channels", "groups", "counts", "janitor", "retention", "dead", "ticks", "recurring"].map(del(false)),
  ...["retries:a", "retries:once", "floors:a", "floors:all", "members:all", "once:once", "olderonce:once"].map(
    del(false)
  )
]

/** How many entries of a registry are made again, within a lease, although nobody misses them before. */
const registered = new Map([[key("channels"), 1], [key("groups"), Mix.groups.length]])

export default {
  number: 6,
  title: "FLUSHALL, SCRIPT FLUSH, XGROUP DESTROY, DEL of a log and of every other key",
  // What is only registered is looked at once in a lease; what is read is missed at once.
  recoveryWithin: 3_000,
  mayLose: true,
  body: Effect.fnUntraced(function*({ isShort }) {
    const all = yield* Random.shuffle(faults)
    const chosen = isShort
      ? [...faults.slice(0, 3), ...["log:work", "channels", "groups"].map(del(true)), ...all.slice(0, 3)]
      : [...all, ...(yield* Random.shuffle(faults))]
    const order = yield* Random.shuffle(chosen)
    const plan = yield* Effect.forEach(
      order,
      (fault) => Effect.map(Random.nextIntBetween(30, 300), (after) => ({ fault, after }))
    )
    const server = yield* RedisServer.make()
    const recorder = new Recorder()
    const rotif = { url: server.url, prefix: "removed", trimInterval: 500 }
    const recoveries: Array<number> = []
    const violations: Array<string> = []
    return yield* Effect.gen(function*() {
      const mix = yield* Mix.start({ rotif, recorder })
      // What was published before a fault that takes messages along may be lost; all else is handled.
      let lossyAt = 0
      for (const { after, fault } of plan) {
        yield* Effect.sleep(after)
        yield* server.command(...fault.command)
        const at = exactNow()
        if (fault.isLossy) lossyAt = at
        recoveries.push(yield* mix.recovered(at))
        const entries = registered.get(fault.command[1] ?? "")
        if (entries !== undefined) {
          yield* until(
            `${fault.command.join(" ")} is made up for`,
            Effect.map(server.command("hlen", fault.command[1]!), (count) => count === entries),
            5_000
          )
        }
        yield* mix.handled(lossyAt, exactNow()).pipe(
          Effect.catchDefect((defect) => Effect.die(new Error(`after ${fault.command.join(" ")}: ${String(defect)}`)))
        )
      }
      // A waiting message without its time is what only a repair finds. Totals that were deleted stay wrong, and logs have lost messages.
      violations.push(...(yield* mix.end({ except: ["LostMessages", "Miscounted"] })))
      const last = lossyAt
      const account = recorder.account({ groups: Mix.groups, mayBeLost: (from) => from < last })
      return { ...account, faults: plan.length, recoveries, violations: [...account.violations, ...violations] }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
