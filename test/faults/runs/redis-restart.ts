/** Redis is killed with SIGKILL under load, and started again: it has kept every command (`appendfsync always`). */
import { Effect, Random } from "effect"
import { Rotif } from "rotif"
import * as RedisServer from "../../fixtures/RedisServer.ts"
import * as Mix from "../Mix.ts"
import { Recorder } from "../Recorder.ts"
import type { Run } from "../Run.ts"

export default {
  number: 2,
  title: "SIGKILL of Redis and restart with AOF always, under load",
  recoveryWithin: 2_000,
  body: Effect.fnUntraced(function*({ isShort }) {
    // Most of the time it is back at once; now and then everybody has had the time to become patient.
    const plan = yield* Effect.all(
      Array.from({ length: isShort ? 3 : 8 }, (_, i) =>
        Effect.all({
          after: Random.nextIntBetween(50, 500),
          down: i % 5 === 4 ? Random.nextIntBetween(2_000, 5_000) : Random.nextIntBetween(0, 200)
        }))
    )
    const server = yield* RedisServer.make({ appendonly: "yes", appendfsync: "always" })
    const recorder = new Recorder()
    // Nothing is removed from the log: what is stored twice is seen there.
    const rotif = { url: server.url, prefix: "restart", graceMillis: 600_000 }
    const recoveries: Array<number> = []
    return yield* Effect.gen(function*() {
      const mix = yield* Mix.start({ rotif, recorder })
      for (const { after, down } of plan) {
        yield* Effect.sleep(after)
        yield* server.kill
        yield* Effect.sleep(down)
        yield* server.restart
        recoveries.push(yield* mix.recovered(Date.now()))
      }
      const left = yield* mix.end()
      const account = recorder.account({ groups: Mix.groups })
      const violations = [
        ...account.violations,
        ...left,
        ...(yield* Mix.effectsOf(recorder.toldBetween(0))),
        ...(yield* Mix.storedOnce(server, "{restart:0}:log:work", recorder))
      ]
      return { ...account, faults: plan.length, recoveries, violations }
    }).pipe(Effect.provide(Rotif.layer(rotif)))
  })
} satisfies Run
